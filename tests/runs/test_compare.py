"""A comparison shows the same samples by every variant, renders nothing twice, and refuses what would compare something else."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylebatch.cli import main
from stylebatch.engine.variants import MOST_VARIANTS, variants_of, varied_field
from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from stylebatch.reports.committed import Committed
from tests.support.images import write_inputs, write_manifest
from tests.support.prompt_runs import write_prompts


@pytest.fixture
def manifest(tmp_path: Path, eps_folder: Path) -> Path:
    write_inputs(tmp_path, contents=3, styles=3)
    return write_manifest(tmp_path, eps_folder, method={"name": "styleid", "steps": 2})


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "comparison.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_variant_shows_the_samples_of_the_first(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where another seed would draw other pairs and another size other blocks."""
    (tmp_path / "contents" / "dog" / "2.png").write_bytes(b"no picture")
    options = ["--set", "pairing={mode: sample, per_content: 2}", "--limit", "3", "--json"]
    varied = ["--vary", "seed=1,2", "--vary", "image.size=64,128"]
    code = main(["compare", str(manifest), *varied, *options])
    told = json.loads(capsys.readouterr().out)
    output = tmp_path / "out-compare"
    assert json.loads((output / "comparison.json").read_text()) == told
    assert [one["name"] for one in told["variants"]] == [
        *("seed=1,size=64", "seed=1,size=128", "seed=2,size=64", "seed=2,size=128"),
    ]
    rows = _rows(output)
    by_variant: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        by_variant.setdefault(row["variant"], set()).add((row["content_id"], row["style_id"]))
    assert len(by_variant) == 4
    first, *others = by_variant.values()
    assert len(first) == 3
    assert all(one == first for one in others)
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["content_id"] for row in failed} <= {"dog/2.png"}
    assert code == (3 if failed else 0)
    for variant in told["variants"]:
        values = [
            float(row["structure"])
            for row in rows
            if row["variant"] == variant["name"] and row["structure"]
        ]
        assert variant["means"]["structure"] == pytest.approx(sum(values) / len(values))
        assert variant["num_success"] == len(values)
    with Image.open(output / "comparison.png") as picture:
        # 2 inputs and 4 variants beside each other, a line for each sample
        assert picture.width > 6 * 128
        assert picture.height > 3 * 128


def test_a_second_comparison_renders_only_what_is_new(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", str(manifest), "--limit", "2", "--output", str(tmp_path / "c")]
    assert main([*words, "--vary", "method.gamma=0.3,0.9"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^variant +structure +", shown, re.MULTILINE)
    assert shown.count("Each variant inverts its images anew") == 1
    folder = tmp_path / "c" / "gamma=0.3-preview-2"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("data/*")}
    assert before
    assert main([*words, "--vary", "method.gamma=0.9,0.3,0.5"]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("data/*")} == before
    names = [row["variant"] for row in _rows(tmp_path / "c")]
    assert list(dict.fromkeys(names)) == ["gamma=0.9", "gamma=0.3", "gamma=0.5"]


def test_variants_share_the_inversions_of_styles_by_a_cache(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", str(manifest), "--limit", "2", "--vary", "method.gamma=0.3,0.9", "--json"]
    assert main([*words, "--set", f"features.cache={tmp_path / 'cache'}"]) == 0
    first, second = json.loads(capsys.readouterr().out)["variants"]
    # 2 contents and 2 pairs in both; the 2 styles in the first alone
    assert first["evaluations"] - second["evaluations"] == 2 * 2


def test_prompts_are_compared_too(
    tmp_path: Path, eps_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_prompts(tmp_path, "img2img", eps_folder)
    words = ["compare", str(manifest), "--limit", "2", "--set", "image.size=64"]
    assert main([*words, "--vary", "method.strength=0.4,0.8", "--vary", "method.guidance=1"]) == 0
    rows = _rows(tmp_path / "out-compare")
    assert len(rows) == 4
    assert {row["prompt"] for row in rows} <= {"a cat", "a dog"}
    first, second = (
        {row["id"]: row["seed"] for row in rows if row["variant"] == name}
        for name in ("strength=0.4,guidance=1", "strength=0.8,guidance=1")
    )
    assert first == second
    output = Folder.at(tmp_path / "out-compare" / "strength=0.4,guidance=1-preview-2")
    assert sum(len(shard.table) for shard in Committed(output).read()) == 2
    assert "picture:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        (["method.gama=0.3,0.6"], r"variant gama=0\.3: .*method\.gama: unknown key.*did you mean 'gamma'"),
        (["metod.gamma=0.3,0.6"], "unknown key.*did you mean 'method'"),
        (["method.gamma=0.3,7"], r"variant gamma=7: .*method\.gamma: found 7"),
        (["method.preset=paper,fsat"], "variant preset=fsat: .*did you mean 'fast'"),
        (["image.size=64,65"], r"variant size=65: image\.size: found 65"),
        (["contents.path=a,b"], r"--vary contents\.path: changes more than .* for all variants"),
        (["output.path=a,b"], r"--vary output\.path"),
        (["prompts.template=a,b"], r"--vary prompts\.template"),
        (["method.gamma"], "found no `field=values`"),
        (["=1,2"], "found no `field=values`"),
        (["method.gamma=0.3,,0.6"], "found an empty value"),
        (["method.gamma="], "found an empty value"),
        (["method.gamma=0.3"], "found 1 variant; accepted: 2 to"),
        (["method.gamma=0.3,0.30"], "found one variant alone"),
        (["method.gamma=0.3,0.6", "method.gamma=0.9"], "stands twice"),
        (["method={gamma: 0.3},{gamma: 0.6}", "method.tau=1,2"], r"holds method\.tau, which is varied too"),
        (["method.sites=[6,7"], "found no closing ]"),
        (["method.gamma=0.3,'0.6"], "found no closing '"),
        ([f"seed={','.join(map(str, range(MOST_VARIANTS + 1)))}"], "found 65 variants"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_before_anything_is_rendered(
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    vary: list[str],
    expected: str,
) -> None:
    words = [word for one in vary for word in ("--vary", one)]
    assert main(["compare", str(manifest), *words]) == 2
    told = capsys.readouterr().err
    assert re.search(expected, told, re.DOTALL), told
    assert not (tmp_path / "out-compare").exists()


def test_a_file_that_no_comparison_wrote_stays(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "comparison.json").write_text('{"format": "mine"}')
    words = ["compare", str(manifest), "--vary", "seed=1,2", "--limit", "1"]
    assert main([*words, "--output", str(folder)]) == 2
    assert "a file that this program did not write" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["comparison.json"]
    assert main([*words[:-1], "0"]) == 2


def test_equal_variants_are_rendered_once(manifest: Path) -> None:
    found, notes = variants_of(
        str(manifest), ["method.gamma=0.3,0.30,0.6", "method.sites=[6,7],[8]"]
    )
    assert [one.name for one in found] == [
        *("gamma=0.3,sites=[6,7]", "gamma=0.3,sites=[8]"),
        *("gamma=0.6,sites=[6,7]", "gamma=0.6,sites=[8]"),
    ]
    assert len(notes) == 2
    assert len({one.folder for one in found}) == 4
    assert all(re.fullmatch(r"[\w=,.+-]+", one.folder) for one in found)


_WRITTEN = st.sampled_from(["[1,2]", "'a,b'", "{a: [1, 2]}", "it's"])
_VALUES = st.lists(st.one_of(st.floats(0, 1), st.integers(), _WRITTEN), min_size=1)


@settings(max_examples=50, deadline=None)
@given(values=_VALUES, gap=st.sampled_from([",", ", ", " ,"]))
def test_values_are_parted_at_commas_that_are_in_none(values: list[Any], gap: str) -> None:
    texts = [str(value) for value in values]
    assert list(varied_field(f"method.x={gap.join(texts)}").values) == texts


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = varied_field(text)
    except ManifestError:
        return
    assert found.field
    assert all(found.values)
