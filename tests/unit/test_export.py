"""An export holds what was asked for, whatever was asked and in whatever form; and what it cannot do it refuses by name."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.cli import main
from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.errors import DamagedError, ManifestError, PlanChangedError, StylebatchError
from stylebatch.export.export import export, repair_export
from stylebatch.export.export_options import ExportOptions
from stylebatch.folder import Folder
from stylebatch.reports.pictures import Wanted, load_pictures
from stylebatch.spec.output import OutputFormat
from stylebatch.store.output_record import read_run
from stylebatch.store.run_lock import RunLock
from stylebatch.store.sinks import SINKS
from stylebatch.store.verify import verify
from tests.support.exported import FAILED, class_numbers, pictures_of, rendered, rows_of
from tests.support.runs import digests, leftovers
from tests.support.sink_records import LABELS, SCHEMA

CARRIED = ("content_id", "style_id", "label", "caption", "structure", "seed", "sha256")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[OutputFormat, Path]:
    folder = tmp_path_factory.mktemp("rendered")
    return {kind: rendered(folder / kind, kind) for kind in SINKS}


ANY = st.builds(
    dict,
    kind=st.sampled_from(list(SINKS)),
    to=st.sampled_from(list(SINKS)),
    least=st.sampled_from([0.0, 0.3, 0.62]),
    drop=st.sets(st.integers(0, 20), max_size=4),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    balance=st.sampled_from(["", "style", "label"]),
    size=st.sampled_from([1, 4, 50, None]),
    seed=st.integers(0, 3),
)


@settings(max_examples=6, deadline=None)
@given(ANY)
def test_any_choice_in_any_form(outputs: dict[OutputFormat, Path], asked: dict[str, Any]) -> None:
    source = outputs[asked["kind"]]
    rows = rows_of(source)
    drop = [row["key"] for n, row in enumerate(rows) if n in asked["drop"]]
    kept = [r for r in rows if r["structure"] >= asked["least"] and r["key"] not in drop]
    options = ExportOptions(
        format=asked["to"], where=f"structure >= {asked['least']}", drop=tuple(drop), originals=asked["share"],
        balance=asked["balance"], seed=asked["seed"], shard_size=asked["size"],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        result = export([source], output, options)
        assert list(verify(output)) == []
        found = rows_of(output, success=False)
        keys = [row["key"] for row in found]
        assert keys == sorted(set(keys))
        assert {row["status"] for row in found} == {"success"}
        stylised = [row for row in found if not row.get("is_original")]
        by_key = {row["key"]: row for row in kept}
        for row in stylised:
            before = by_key[row["source_key"]]
            assert [row[name] for name in CARRIED] == [before[name] for name in CARRIED]
        asked_keys = [row["source_key"] for row in stylised]
        assert asked_keys == sorted(asked_keys)
        column = {"style": "style_id", "label": "label"}.get(asked["balance"])
        if column is None:
            assert asked_keys == list(by_key)
        else:
            counts = Counter(row[column] for row in stylised)
            assert set(counts.values()) == {min(Counter(row[column] for row in kept).values())}
            assert set(counts) == {row[column] for row in kept}
        originals = [row for row in found if row.get("is_original")]
        assert len(originals) == min(len(stylised), int(asked["share"] * len(stylised) + 0.5))
        times = Counter(row["content_id"] for row in originals)
        # each once before one comes twice: those that come less often have no further sample
        for content, count in Counter(row["content_id"] for row in stylised).items():
            assert times[content] in (count, most := max(times.values(), default=0), most - 1)
        now, former = pictures_of(output, keys), pictures_of(source, list(by_key))
        for row in found:
            before = former[row["source_key"]]
            wanted = (
                dict.fromkeys(before, before["content.jpg"]) if row.get("is_original") else before
            )
            assert now[row["key"]] == wanted
        assert result.report.num_success == result.num_samples == len(found)
        numbers = class_numbers(output)
        assert numbers == {label: LABELS.index(label) for label in numbers}


def test_an_original_is_its_content_in_its_own_style(
    outputs: dict[OutputFormat, Path], tmp_path: Path
) -> None:
    export([outputs["parquet"]], tmp_path, ExportOptions(originals=1.0))
    originals = [row for row in rows_of(tmp_path) if row["is_original"]]
    assert len(originals) == 18
    for row in originals:
        assert (row["method"], row["style_id"]) == ("original", "")
        assert (row["structure"], row["color_distance"]) == (pytest.approx(1.0), 0.0)
        assert row["contrast"] > 0
    rows = {row["key"]: row for row in originals}
    shown = load_pictures(
        Folder.at(tmp_path),
        [Wanted({**row, "shard": f"train-{row['shard']:05d}"}, (64, 64)) for row in originals],
    )
    assert set(shown.results) == set(rows)
    assert not shown.inputs["style"]
    # each content stands with the sample that gave it, so that both land in one shard or in neighbours
    keys = [(row["source_key"], row["is_original"]) for row in rows_of(tmp_path)]
    assert keys == sorted(keys)


def test_forms_turn_into_each_other_without_loss(
    outputs: dict[OutputFormat, Path], tmp_path: Path
) -> None:
    before, forms = outputs["webdataset"], ("files", "parquet", "webdataset")
    for form in forms:
        export([before], tmp_path / form, ExportOptions(format=form))  # type: ignore[arg-type]
        before = tmp_path / form
    first, last = rows_of(outputs["webdataset"]), rows_of(before)
    assert [[row[name] for name in SCHEMA.names[2:]] for row in last] == [
        [row[name] for name in SCHEMA.names[2:]] for row in first
    ]
    old = pictures_of(outputs["webdataset"], [row["key"] for row in first])
    assert list(pictures_of(before, [row["key"] for row in last]).values()) == list(old.values())


def test_expressions_are_sql(outputs: dict[OutputFormat, Path], tmp_path: Path) -> None:
    text = "Structure > 0.4 and label in ('cat', 'a/b') and list_contains(sites, 6) -- half of them"
    export([outputs["webdataset"]], tmp_path, ExportOptions(where=text))
    assert {row["label"] for row in rows_of(tmp_path)} == {"a/b"}
    assert all(row["structure"] > 0.4 for row in rows_of(tmp_path))


def test_what_cannot_be_exported_is_refused(
    outputs: dict[OutputFormat, Path], tmp_path: Path
) -> None:
    source = outputs["webdataset"]
    asked: dict[str, ExportOptions] = {
        "no sample is left": ExportOptions(where="structure > 2"),
        "00000999": ExportOptions(drop=("00000999",)),
    }
    for said, options in asked.items():
        with pytest.raises(ManifestError, match=said):
            export([source], tmp_path / "out", options)
    for wrong in (
        {"originals": 1.5},
        {"originals": float("nan")},
        {"balance": "size"},
        {"shard_size": 0},
    ):
        with pytest.raises(ManifestError, match="accepted"):
            ExportOptions(**wrong)  # type: ignore[arg-type]
    for place in (source, source / "data"):
        with pytest.raises(ManifestError, match="directory of its own"):
            export([source], place)
    with pytest.raises(ManifestError, match=r"run\.json: missing"):
        export([tmp_path / "nowhere"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/photo.jpg").touch()
    with pytest.raises(ManifestError, match="other files"):
        export([source], tmp_path / "other")
    with (
        RunLock(Folder.at(source)),
        pytest.raises(StylebatchError, match="cannot be exported") as locked,
    ):
        export([source], tmp_path / "out")
    assert locked.value.exit_code == 4


def test_an_export_is_continued_and_never_another(
    outputs: dict[OutputFormat, Path], tmp_path: Path
) -> None:
    options = ExportOptions(where="structure > 0.2", originals=0.5, shard_size=4)
    export([outputs["files"]], tmp_path, options)
    whole = digests(tmp_path)
    (tmp_path / "metadata/train-00001_stats.json").unlink()
    again = export([outputs["files"]], tmp_path, options)
    assert (digests(tmp_path), leftovers(tmp_path)) == (whole, [])
    assert again.num_resumed_shards == len(list(tmp_path.glob("metadata/*_stats.json"))) - 1
    with pytest.raises(
        PlanChangedError, match=r"export.where: \"structure > 0.2\" -> \"structure > 0.3\""
    ):
        export(
            [outputs["files"]],
            tmp_path,
            ExportOptions(where="structure > 0.3", originals=0.5, shard_size=4),
        )
    # the same samples of an output with other bytes
    with pytest.raises(PlanChangedError, match="the shards that are exported changed"):
        export(
            [outputs["webdataset"]],
            tmp_path,
            ExportOptions(where="structure > 0.2", originals=0.5, shard_size=4, format="files"),
        )
    assert digests(tmp_path) == whole


@pytest.mark.parametrize("kind", SINKS)
def test_a_damaged_export_is_made_again(
    kind: OutputFormat, outputs: dict[OutputFormat, Path], tmp_path: Path
) -> None:
    export([outputs[kind]], tmp_path, ExportOptions(balance="label", originals=0.5, shard_size=5))
    whole = digests(tmp_path)
    victim = next(
        path
        for path in sorted(tmp_path.rglob("*"))
        if path.suffix in (".tar", ".jpg") or path.match("data/*.parquet")
    )
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    assert {problem.shard for problem in verify(tmp_path)} - {None}
    assert main(["repair", str(tmp_path)]) == 0
    assert digests(tmp_path) == whole
    assert list(verify(tmp_path)) == []
    with pytest.raises(ManifestError, match="found no export"):
        repair_export(outputs[kind])


def test_damage_is_not_copied(outputs: dict[OutputFormat, Path], tmp_path: Path) -> None:
    source = rendered(tmp_path / "source")
    tar = source / "data/train-00001.tar"
    data = bytearray(tar.read_bytes())
    data[data.index(b"\xff\xd8\xff") + 200] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DamagedError, match=r"its bytes changed|the image of .* changed"):
        export([source], tmp_path / "out", ExportOptions(shard_size=6))
    assert [path.name for path in (tmp_path / "out/data").iterdir()] == ["train-00000.tar"]
    (source / "metadata/train-00001.parquet").unlink()
    with pytest.raises(DamagedError, match="not those of its commit"):
        export([source], tmp_path / "out", ExportOptions(shard_size=6))


def test_outputs_are_joined(tmp_path: Path) -> None:
    """Keys and ids of both are the same; classes, lineage and licences are not."""
    one = rendered(tmp_path / "one", name="first", labels=["zebra", *LABELS])
    other = rendered(
        tmp_path / "other",
        "parquet",
        name="second",
        caption="another",
        spec={"license": "mit", "method": {"name": "styleid"}},
    )
    export([one, other], tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert Counter(row["source"] for row in rows) == {"first": 18, "second": 18}
    assert len({row["key"] for row in rows}) == 36
    assert list(verify(tmp_path / "out")) == []
    assert class_numbers(tmp_path / "out") == {
        label: number + 1 for number, label in enumerate(LABELS) if label != LABELS[FAILED]
    }
    _, header, body = (tmp_path / "out/README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(header)
    assert "license" not in card
    features = {feature["name"]: feature for feature in card["dataset_info"]["features"]}
    assert features["cls"]["dtype"]["class_label"]["names"]["0"] == "zebra"
    assert "Dataset first: `one`; licences: cc-by-4.0" in body
    assert "Dataset second: `other`; licences: mit" in body
    assert "Contents of first: `photos`; licences: cc0-1.0" in body


@pytest.mark.parametrize("kind", SINKS)
def test_inputs_that_stand_once_in_a_shard_do_so_after_an_export(
    kind: OutputFormat, tmp_path: Path
) -> None:
    source = rendered(tmp_path / "source", kind, shares_inputs=True)
    export([source], tmp_path / "out", ExportOptions(where="structure > 0.2", shard_size=9))
    assert list(verify(tmp_path / "out")) == []
    rows = rows_of(tmp_path / "out")
    now = pictures_of(tmp_path / "out", [row["key"] for row in rows])
    before = pictures_of(source, [row["source_key"] for row in rows])
    assert [now[row["key"]] for row in rows] == [before[row["source_key"]] for row in rows]
    stored = [path for path in (tmp_path / "out/input_images").rglob("*.*") if path.is_file()]
    assert 0 < len(stored) < 2 * len(rows)
    # a content in the place of a style has no id that would tell it from another
    export([source], tmp_path / "mixed", ExportOptions(originals=1.0))
    keys = {row["key"]: row["is_original"] for row in rows_of(tmp_path / "mixed")}
    found = pictures_of(tmp_path / "mixed", list(keys))
    assert all(one["style.jpg"] == one["content.jpg"] for key, one in found.items() if keys[key])


def test_objects_keep_their_form_and_the_number_of_their_class(tmp_path: Path) -> None:
    one = rendered(tmp_path / "one", "parquet", name="first", annotations="yolo")
    other = rendered(
        tmp_path / "other", name="second", annotations="yolo", labels=["zebra", *reversed(LABELS)]
    )
    export([one], tmp_path / "files", ExportOptions(format="files"))
    lines = {path.stem: path.read_text() for path in (tmp_path / "files/labels").rglob("*.txt")}
    rows = rows_of(tmp_path / "files")
    assert len(lines) == len(rows) == 18
    for row in rows:
        assert lines[Path(row["file_name"]).stem].startswith(f"{LABELS.index(row['label'])} ")
    export([tmp_path / "files"], tmp_path / "rows", ExportOptions(format="parquet"))
    export([tmp_path / "rows"], tmp_path / "again", ExportOptions(format="files"))
    assert sorted(
        path.read_text() for path in (tmp_path / "again/labels").rglob("*.txt")
    ) == sorted(lines.values())
    export([one, other], tmp_path / "both", ExportOptions(format="files"))
    assert list(verify(tmp_path / "both")) == []
    numbers = {name: number for number, name in enumerate([*LABELS, "zebra"])}
    for row in rows_of(tmp_path / "both"):
        assert row["objects"]["category_id"] == [numbers[row["label"]]]


def test_splits_stay(tmp_path: Path) -> None:
    splits = [{"name": "train", "num_shards": 2}, {"name": "validation", "num_shards": 1}]
    parts = [{"first_shard": 0, "num_shards": 3, "splits": splits}]
    source = rendered(tmp_path / "source", generations=parts)
    export([source], tmp_path / "out", ExportOptions(where="structure > 0.2", originals=0.5))
    assert list(verify(tmp_path / "out")) == []
    names = sorted(path.name for path in (tmp_path / "out/data").iterdir())
    assert [name.partition("-")[0] for name in names] == ["train"] * 4 + ["validation"] * 3
    parts_of = {row["key"]: row["source_key"] for row in rows_of(tmp_path / "out")}
    kept = {
        key: {"0": "train", "1": "train", "2": "validation"}[before[4]]
        for key, before in parts_of.items()
    }
    record = read_run(Folder.at(tmp_path / "out"))
    assert all(
        record.parts[0].shard_name(int(key[:5])).startswith(split) for key, split in kept.items()
    )
    card = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---\n", 2)[1])
    assert [one["split"] for one in card["configs"][0]["data_files"]] == ["train", "validation"]


def test_outputs_of_other_columns_are_not_joined(
    outputs: dict[OutputFormat, Path], tmp_path: Path
) -> None:
    export([outputs["parquet"]], tmp_path / "one", ExportOptions(originals=0.5))
    with pytest.raises(ManifestError, match="column is_original: bool and missing"):
        export([tmp_path / "one", outputs["webdataset"]], tmp_path / "out")
    with pytest.raises(ManifestError, match="stands there twice"):
        export([outputs["parquet"], outputs["parquet"]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_is_an_output_and_a_source(
    outputs: dict[OutputFormat, Path], tmp_path: Path
) -> None:
    source = rendered(tmp_path / "source", labels=list(LABELS))
    export([source], tmp_path / "half", ExportOptions(where="structure > 0.5"))
    export(
        [tmp_path / "half"],
        tmp_path / "quarter",
        ExportOptions(where="structure > 0.75", format="parquet"),
    )
    for name in ("half", "quarter"):
        options = SourceOptions(image="image" if name == "quarter" else None)
        items = list(open_source(str(tmp_path / name), "contents", options).items())
        assert [item.label for item in items] == [row["label"] for row in rows_of(tmp_path / name)]
    run = json.loads((tmp_path / "quarter/run.json").read_text())
    assert run["labels"] == list(LABELS)
    assert run["export"]["where"] == "structure > 0.75"
    body = (tmp_path / "quarter/README.md").read_text()
    assert "fulfil structure > 0.75" in body
    assert "Contents: `photos`; licences: cc0-1.0" in body
    assert (tmp_path / "quarter/gallery.html").stat().st_size > 1000


def test_the_command_says_what_it_took(
    outputs: dict[OutputFormat, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(outputs["webdataset"])
    (tmp_path / "keys.txt").write_text("000000001\n")
    words = ["export", source, "--to", "parquet", "--output", str(tmp_path / "out")]
    options = [
        "--where",
        "structure > 0.1",
        "--drop",
        str(tmp_path / "keys.txt"),
        "--with-originals",
        "0.5",
        "--balance",
        "style",
    ]
    assert main([*words, *options]) == 0
    shown = capsys.readouterr().out
    assert "16 of 18 samples fulfil structure > 0.1" in shown
    assert "1 key left out by a list" in shown
    assert "Balanced: " in shown
    assert "originals added, of" in shown
    assert main([*words, "--where", "strukture > 0.1"]) == 2
    assert "did you mean structure" in capsys.readouterr().err
    assert main([*words[:2], "--to", "zip", *words[4:]]) == 2
    assert "--to files --annotations" not in capsys.readouterr().err
    assert main([*words[:2], "--to", "COCO", *words[4:]]) == 2
    assert "Next: `--to files --annotations coco` writes these" in capsys.readouterr().err
    assert main(["merge", source, "--output", str(tmp_path / "both")]) == 2
