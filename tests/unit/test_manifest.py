"""Manifests: what is read, and that each error names the file, the field, the value and what is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from stylebatch.data.fit_modes import FitMode
from stylebatch.data.image_section import ImageSpec
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.models.model_section import ModelSpec
from stylebatch.spec import EngineSpec, RunSpec
from stylebatch.spec.output import OutputFormat


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("contents", "styles"):
        (tmp_path / name).mkdir()
    return tmp_path


def write(folder: Path, changes: dict[str, Any] | None = None, name: str = "run.yaml") -> Path:
    data = {
        "contents": {"path": "contents"},
        "styles": {"path": "styles"},
        "output": {"path": "outputs/run"},
    } | (changes or {})
    path = folder / name
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def refusal(path: Path, overrides: tuple[str, ...] = (), *, output: str | None = None) -> str:
    with pytest.raises(ManifestError) as caught:
        load_spec(path, overrides, output=output)
    assert caught.value.exit_code == 2
    assert caught.value.__cause__ is None  # one paragraph, no chained traceback
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def test_inputs_are_relative_to_the_manifest_and_the_output_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder)
    monkeypatch.chdir("/")
    spec = load_spec(path)
    assert spec.contents is not None
    assert spec.contents.path == str(folder / "contents")
    assert spec.output.path == "outputs/run"
    assert load_spec(str(path)) == spec


@pytest.mark.parametrize(
    ("changes", "field", "found", "hint"),
    [
        ({"methd": {"gamma": 0.5}}, "methd", '{"gamma": 0.5}', "did you mean 'method'?"),
        ({"method": {"gama": 0.5}}, "method.gama", "0.5", "did you mean 'gamma'?"),
        (
            {"output": {"path": "x", "image": {"qualty": 9}}},
            "output.image.qualty",
            "9",
            "did you mean 'quality'?",
        ),
        (
            {"engine": {"name": "local", "thread": 2}},
            "engine.thread",
            "2",
            "did you mean 'threads'?",
        ),
        (
            {"contents": {"path": "contents", "folder": "x"}},
            "contents.folder",
            '"x"',
            "accepted keys: path",
        ),
        (
            {"model": {"name": "tiny", "dtyp": "auto"}},
            "model.dtyp",
            '"auto"',
            "did you mean 'dtype'?",
        ),
    ],
)
def test_unknown_key_is_named_with_the_closest_one(
    folder: Path, changes: dict[str, Any], field: str, found: str, hint: str
) -> None:
    path = write(folder, changes)
    text = refusal(path)
    assert f"{path}: {field}: unknown key with value {found}" in text
    assert hint in text
    assert "accepted keys: " in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"method": {"gamma": "high"}},
            'method.gamma: found "high"; input should be a valid number',
        ),
        (
            {"method": {"gamma": 1.5}},
            "method.gamma: found 1.5; input should be less than or equal to 1",
        ),
        ({"method": {"tau": 0}}, "method.tau: found 0; input should be greater than 0"),
        ({"method": {"steps": "50"}}, 'method.steps: found "50"; input should be a valid integer'),
        (
            {"method": {"sites": [6, 12]}},
            "method.sites.1: found 12; input should be less than or equal to 11",
        ),
        (
            {"method": {"convention": "sd"}},
            "method.convention: found \"sd\"; input should be 'ldm' or 'diffusers'",
        ),
        ({"method": {"name": "adain"}}, 'method.name: found "adain"; accepted: styleid, '),
        (
            {"image": {"size": 16}},
            "image.size: found 16; input should be greater than or equal to 32",
        ),
        ({"image": 128}, "image: found 128; "),
        (
            {"output": {"path": "x", "image": {"format": "gif"}}},
            "output.image.format: found \"gif\"; input should be 'jpg', 'png', 'webp' or 'avif'",
        ),
        ({"output": "outputs/run"}, 'output: found "outputs/run"; '),
        (
            {"model": "sdxxl"},
            "model.name: found \"sdxxl\"; did you mean 'sdxl'? accepted: tiny, sd14, sd15, sd21-base, sd21, sdxl, or {path: FOLDER}",
        ),
        ({"engine": "thread"}, 'engine.name: found "thread"; input should be '),
        ({"seed": -1}, "seed: found -1; input should be greater than or equal to 0"),
        (
            {"max_failed_fraction": 2},
            "max_failed_fraction: found 2; input should be less than or equal to 1",
        ),
        ({"contents": None}, "contents is missing; give `contents: {path: FOLDER}`"),
        ({"contents": "contents"}, 'contents: found "contents"; '),
        ({"output": {}}, "output.path: missing"),
        (
            {"model": {"name": "tiny", "path": "."}},
            "model: give exactly one of `name`, `path` and `id`",
        ),
        ({"model": {"name": "tiny", "revision": "main"}}, "model: `revision` belongs to `id`"),
        (
            {"method": {"steps": 30}},
            "steps: found 30; convention ldm accepts divisors of 1000: 2, 4, 5, 8, 10",
        ),
        (
            {"method": {"convention": "diffusers", "start": "paper"}},
            "start belongs to convention ldm; leave it out",
        ),
        (
            {"method": {"sites": [7, 6]}},
            "method.sites: sites are given once each, ascending, at least one",
        ),
        ({"pairing": {"mode": "explicit"}}, "belongs to mode explicit, which needs it"),
        ({"name": ""}, 'name: found ""; '),
        (
            {"prompts": {"template": "{x}", "values": {"x": ["a", 7]}}},
            "run.yaml: prompts.values.x.1: found 7; input should be a valid string\nNext",
        ),
    ],
)
def test_error_names_file_field_value_and_what_is_accepted(
    folder: Path, changes: dict[str, Any], expected: str
) -> None:
    path = write(folder, changes)
    text = refusal(path)
    assert text.startswith(f"{path}: ")
    assert expected in text
    assert "Next: correct the manifest; `stylebatch schema`" in text


def test_all_faults_are_named_at_once(folder: Path) -> None:
    text = refusal(
        write(folder, {"seed": -1, "method": {"gamma": 7, "gama": 1}, "image": {"size": 1}})
    )
    for field in ("seed", "method.gamma", "method.gama", "image.size"):
        assert f"run.yaml: {field}: " in text
    assert "pydantic" not in text


def test_missing_output_is_named(folder: Path) -> None:
    path = folder / "run.yaml"
    path.write_text("contents: {path: contents}\nstyles: {path: styles}\n", encoding="utf-8")
    assert (
        f"{path}: output: missing, and it has no default; accepted: a mapping with path, format"
        in refusal(path)
    )


def test_long_values_are_cut(folder: Path) -> None:
    text = refusal(write(folder, {"seed": "x" * 5000}))
    assert max(map(len, text.splitlines())) < 400


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_numbers_are_refused(folder: Path, value: float) -> None:
    assert "method.tau: found " in refusal(write(folder, {"method": {"tau": value}}))


@pytest.mark.parametrize("field", ["contents", "styles"])
def test_input_that_does_not_exist_is_named(folder: Path, field: str) -> None:
    path = write(folder, {field: {"path": "nowhere"}})
    text = refusal(path)
    assert (
        f"{path}: {field}.path: found {str(folder / 'nowhere')!r}, which does not exist; accepted: an image folder, a .csv, .tsv"
        in text
    )


def test_paths_that_cannot_be_are_refused(folder: Path) -> None:
    (folder / "here").symlink_to("there")
    (folder / "there").symlink_to("here")
    for name in (str(folder / "here"), "x" * 300):
        assert "output.path: found" in refusal(write(folder, {"output": {"path": name}}))
        assert "does not exist" in refusal(write(folder, {"contents": {"path": name}}))
    assert "no such manifest" in refusal(Path("x" * 300))


def test_picture_given_for_a_folder_is_refused(folder: Path) -> None:
    (folder / "cat.jpg").write_bytes(b"x")
    text = refusal(write(folder, {"contents": {"path": "cat.jpg"}}))
    assert "contents.path: found " in text
    assert "accepted: an image folder, a .csv, .tsv, .jsonl, .parquet file of rows" in text


def test_model_folder_and_pairing_rows_that_do_not_exist_are_named(folder: Path) -> None:
    assert "model.path: found " in refusal(write(folder, {"model": {"path": "sd15"}}))
    path = folder / "pairs.yaml"
    path.write_text(
        "pairing: {mode: explicit, path: rows.csv}\noutput: {path: x}\n", encoding="utf-8"
    )
    assert "pairing.path: found " in refusal(path)


def test_manifest_that_does_not_exist(tmp_path: Path) -> None:
    text = refusal(tmp_path / "no.yaml")
    assert (
        f"{tmp_path / 'no.yaml'}: no such manifest; give a YAML file or rows (.csv, .tsv, .jsonl, .parquet)"
        in text
    )


def test_of_a_folder_and_a_file_the_one_that_is_more_alike_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo.yaml").touch()
    assert f"did you mean {tmp_path / 'demo.yaml'}?" in refusal(tmp_path / "demo.yml")


def test_an_equal_ending_makes_no_name_near(tmp_path: Path) -> None:
    (tmp_path / "inpaint.yaml").touch()
    assert "did you mean" not in refusal(tmp_path / "nope.yaml")


@pytest.mark.parametrize(
    "typed", ["mine.yml", "mine.json", "mine", "mien.yaml", "../floder/mine.yaml"]
)
def test_a_manifest_of_almost_that_name_is_named(
    tmp_path: Path, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "contents: {path: phtos}\nstyles: {path: .}\noutput: {path: x}\n"
    )
    (folder / "photos").mkdir()
    monkeypatch.chdir(folder)
    meant = "../folder/mine.yaml" if "/" in typed else "mine.yaml"
    assert f"no such manifest; did you mean {meant}? give a YAML file" in refusal(Path(typed))
    assert "found 'phtos', which does not exist; did you mean photos?" in refusal(Path("mine.yaml"))


@pytest.mark.parametrize("name", ["run.toml", "run", "run.json"])
def test_other_file_types_are_refused_with_the_accepted_ones(folder: Path, name: str) -> None:
    text = refusal(write(folder, name=name))
    assert "accepted: .yaml, .yml, .csv, .tsv, .jsonl, .parquet" in text


def test_folder_given_for_a_manifest(folder: Path) -> None:
    (folder / "demo.yaml").mkdir()
    for path in (folder, folder / "demo.yaml"):
        assert str(path) in refusal(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"contents: [unclosed", "not valid YAML"),
        (b"a: b: c", "not valid YAML"),
        (b"\xff\xfe\x00bad", "found str at the top"),
        (b"\xffbad", "not valid YAML"),
        (b"", "found NoneType at the top; accepted: a mapping"),
        (b"- a\n- b\n", "found list at the top; accepted: a mapping"),
        (b"!!python/object/apply:os.getcwd []", "not valid YAML"),
        (b"2026-01-01: x\n", "2026-01-01"),
        (b"a: &a [*a]\n", "line 1, in a: the alias *a contains itself"),
    ],
)
def test_text_that_is_no_mapping(folder: Path, content: bytes, expected: str) -> None:
    path = folder / "run.yaml"
    path.write_bytes(content)
    text = refusal(path)
    assert text.startswith(f"{path}: ")
    assert expected in text


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".CSV"])
def test_rows_alone_are_a_run_with_explicit_pairing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs{suffix}"
    path.write_text("content,style\na.jpg,b.jpg\n", encoding="utf-8")
    spec = load_spec(path)
    assert (spec.name, spec.pairing.mode, spec.pairing.path) == ("pairs", "explicit", str(path))
    assert (spec.contents, spec.styles) == (None, None)
    assert spec.output.path == "outputs/pairs"
    assert load_spec(path, ["method.gamma=0.5"], output="elsewhere").output.path == "elsewhere"


def test_overrides_set_nested_fields_with_yaml_values(folder: Path) -> None:
    spec = load_spec(
        write(folder, {"model": "tiny"}),
        [
            "method.gamma=0.5",
            "method.sites=[7, 8]",
            "method.init_adain=false",
            "output.image.format=png",
            "seed=7",
            "name=my run",
            "engine.threads=2",
            "image.size=64",
        ],
    )
    assert (spec.method.gamma, spec.method.sites, spec.method.init_adain) == (0.5, (7, 8), False)
    assert (spec.output.image.format, spec.output.path) == ("png", "outputs/run")
    assert (spec.seed, spec.name, spec.image.size) == (7, "my run", 64)
    assert spec.engine == EngineSpec(threads=2)


@pytest.mark.parametrize("output", ["file", "file/out", "gone", "gone/out", "loop", "loop/out"])
def test_what_stands_in_the_way_of_the_output_is_named(folder: Path, output: str) -> None:
    (folder / "file").write_text("x")
    (folder / "gone").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    kinds = {"file": "is a file", "gone": "is a link that leads nowhere", "loop": "a loop of"}
    what = kinds[output[:4]]
    with pytest.raises(ManifestError, match=f"output.path: found .*{what}.*accepted: a directory"):
        load_spec(write(folder), output=str(folder / output))


def test_later_override_wins_and_output_wins_over_the_manifest(folder: Path) -> None:
    spec = load_spec(write(folder), ["seed=1", "seed=2"], output="elsewhere")
    assert spec.seed == 2
    assert spec.output.path == "elsewhere"


def test_override_of_a_short_form_keeps_its_name(folder: Path) -> None:
    spec = load_spec(
        write(folder, {"model": "sd15", "engine": "local"}),
        ["model.dtype=float32", "engine.batch=4"],
    )
    assert spec.model == ModelSpec(name="sd15", dtype="float32")
    assert spec.engine == EngineSpec(name="local", batch=4)


def test_override_of_a_field_of_the_default_model_keeps_that_model(folder: Path) -> None:
    assert load_spec(write(folder), ["model.dtype=float32"]).model == ModelSpec(
        name="tiny", dtype="float32"
    )


def test_overridden_model_and_engine_by_short_form(folder: Path) -> None:
    spec = load_spec(
        write(folder, {"model": {"name": "tiny", "dtype": "float32"}}),
        ["model=sd21", "engine=local"],
    )
    assert spec.model == ModelSpec(name="sd21")
    assert spec.engine.name == "local"


def test_overridden_input_is_relative_to_the_manifest_like_the_written_one(folder: Path) -> None:
    (folder / "others").mkdir()
    spec = load_spec(write(folder), ["contents.path=others"])
    assert spec.contents is not None
    assert spec.contents.path == str(folder / "others")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "method.gamma",
            "--set method.gamma: found no `key=value`; example: --set method.gamma=0.5",
        ),
        ("=3", "--set =3: found no `key=value`"),
        ("method.sites=[6, 7", "--set method.sites=[6, 7: not valid YAML"),
        ("name.first=x", "--set name.first=x: name is 'run', which has no fields"),
        ("method.gama=0.5", "method.gama: unknown key with value 0.5; did you mean 'gamma'?"),
        ("method.gamma=2", "method.gamma: found 2; input should be less than or equal to 1"),
        ("method.steps=30", "steps: found 30; convention ldm accepts divisors of 1000"),
    ],
)
def test_bad_override(folder: Path, override: str, expected: str) -> None:
    assert expected in refusal(write(folder, {"name": "run"}), (override,))


def test_overrides_do_not_leak_between_loads(folder: Path) -> None:
    path = write(folder)
    before = load_spec(path)
    load_spec(path, ["method.gamma=0.1", "output.shard_size=9"])
    assert load_spec(path) == before


def test_short_and_long_forms_of_a_manifest_are_the_same_run(folder: Path) -> None:
    short = load_spec(write(folder, {"model": "tiny", "engine": "auto"}))
    long = load_spec(
        write(
            folder,
            {"model": {"name": "tiny"}, "engine": {"name": "auto"}, "method": {"name": "styleid"}},
        )
    )
    assert short == long == RunSpec.model_validate(short.model_dump())


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("image.mode", get_args(FitMode)),
        ("image.truncated", ("refuse", "accept")),
        ("contents.captions", ("first", "drawn")),
        ("contents.damaged", ("refuse", "pass_over")),
        ("output.format", get_args(OutputFormat)),
        ("output.image.format", ("webp", "avif")),
        ("pairing.mode", ("product", "explicit", "sample")),
        ("method.convention", ("diffusers",)),
    ],
)
def test_a_misspelt_word_is_told_once_with_the_one_that_was_meant(
    tmp_path: Path, key: str, words: tuple[str, ...]
) -> None:
    for word in words:
        section, *fields, leaf = key.split(".")
        data: dict[str, Any] = {leaf: word[:1] + word[2:]}
        for field in reversed(fields):
            data = {field: data}
        base = {"contents": {"path": "a"}, "styles": {"path": "b"}, "output": {"path": "o"}}
        manifest = base | {section: base.get(section, {}) | data}
        (tmp_path / "run.yaml").write_text(json.dumps(manifest))
        with pytest.raises(ManifestError) as error:
            load_spec(tmp_path / "run.yaml")
        first, *others = str(error.value).splitlines()
        assert f'{key}: found "{word[:1] + word[2:]}"; did you mean {word!r}? ' in first
        assert others == [
            "Next: correct the manifest; `stylebatch schema` prints every field with what it accepts."
        ]


def test_options_that_mean_nothing_to_the_mode_are_told() -> None:
    assert ImageSpec(fill=(0, 0, 0)).unused == [
        "image.fill is not used: it is for `mode: pad`, and the mode is center_crop"
    ]
    assert ImageSpec(mode="fit", max_pixels=5000).unused[0].startswith("image.max_pixels is not")
    assert ImageSpec(mode="pad", fill=(0, 0, 0)).unused == []
    assert ImageSpec(mode="keep", max_pixels=5000).unused == []
