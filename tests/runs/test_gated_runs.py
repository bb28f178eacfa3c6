"""What gates reject is a row with a reason and no picture; what is tried again has the same bytes whatever happens."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylebatch.cli import main
from stylebatch.engine.repair import repair
from stylebatch.engine.run import RunResult, run
from stylebatch.errors import PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.reports.report import report
from stylebatch.store.verify import verify
from tests.support.pages import held, names_of
from tests.support.prompt_runs import write_prompts
from tests.support.runs import digests, small_manifest

Render = Callable[..., RunResult]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 contents x 3 styles on the embedded model, in two shards of six."""
    found = small_manifest(tmp_path_factory.mktemp("gated"), contents=4, styles=3)
    data = json.loads(found.read_text())
    data["output"]["shard_size"] = 6
    data["output"]["image"] = {"format": "png"}
    data["engine"] = {"name": "local", "threads": 1, "batch": 4, "feature_gb": 0.002}
    found.write_text(json.dumps(data))
    return found


@pytest.fixture
def render(manifest: Path, tmp_path: Path) -> Render:
    """`render(name, change, ...)`: the manifest, changed, into a folder of that name."""

    def made(name: str, *changes: str, **options: Any) -> RunResult:
        return run(load_spec(manifest, changes, output=str(tmp_path / name)), **options)

    return made


@pytest.fixture(scope="module")
def plain(manifest: Path) -> pa.Table:
    """Rows of a run without gates."""
    return rows_of(run(load_spec(manifest, output=str(manifest.parent / "plain"))).output)


def rows_of(output: Path) -> pa.Table:
    shards = sorted(output.glob("metadata/train-*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in shards])


def limit_of(plain: pa.Table, share: float) -> float:
    """A structure that so many of the samples are below."""
    values = sorted(plain["structure"].to_pylist())
    place = int(len(values) * share)
    return (values[place - 1] + values[place]) / 2


def keys_in_tars(output: Path) -> list[str]:
    names = []
    for path in sorted(output.glob("data/*.tar")):
        with tarfile.open(path) as archive:
            names += [name for name in archive.getnames() if name.endswith(".json")]
    return [name.removesuffix(".json") for name in names]


def test_a_rejected_sample_is_a_row_with_its_reason(
    render: Render, plain: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = limit_of(plain, 0.5)
    done = render("out", f"gates.reject=structure < {limit!r}")
    rows = rows_of(done.output).to_pylist()
    assert done.exit_code == 0
    assert "attempt" not in rows[0]
    for row, former in zip(rows, plain.to_pylist(), strict=True):
        is_bad = former["structure"] < limit
        told = (row["status"], row["error_code"], row["sha256"])
        assert told == (("rejected", "gate", "") if is_bad else ("success", "", former["sha256"]))
        assert row["structure"] == former["structure"]
        assert row["error_message"].startswith("structure <") == is_bad
    passed = [row["key"] for row in rows if row["status"] == "success"]
    assert keys_in_tars(done.output) == passed
    report = done.report
    assert (report.num_success, report.num_rejected, report.num_failed) == (6, 6, 0)
    assert report.quality["structure"] == pytest.approx(
        sum(row["structure"] for row in rows if row["status"] == "success") / 6
    )
    assert any("rejected    6 (50.0%)" in line for line in report.lines())
    assert not any("missing" in line for line in report.lines())
    assert "6 were rejected" in (done.output / "README.md").read_text()
    page = held(done.output / "gallery.html")
    assert "6 rejected" in page["state"]["summary"]
    assert names_of(page, "status") == ["success"] * 6 + ["rejected"] * 6
    assert list(verify(done.output)) == []
    assert pq.read_table(done.output / "metadata/errors.parquet")["status"].to_pylist() == ["rejected"] * 6  # fmt: skip
    assert main(["export", str(done.output), "--to", "files", "--output", str(done.output) + "-files"]) == 0  # fmt: skip
    assert "6 samples" in capsys.readouterr().out


def test_where_all_are_rejected_nothing_is_stored_and_the_run_is_whole(render: Render) -> None:
    changes = ("gates.reject=true", "pairing={mode: sample, per_content: 1}")
    done = render("out", *changes)
    assert (done.exit_code, done.report.num_rejected, done.report.num_success) == (0, 4, 0)
    assert list(verify(done.output)) == []
    assert list(done.output.glob("data/*")) == []
    assert render("out", *changes).num_attempted == 0


@pytest.mark.parametrize(
    ("form", "damages"), [("webdataset", ["longer", "changed"]), ("files", ["lost"])]
)
def test_pictures_that_are_kept_aside_are_committed_with_their_shard(
    form: str, damages: list[str], render: Render, plain: pa.Table, tmp_path: Path
) -> None:
    limit = limit_of(plain, 0.5)
    changes = [f"output.format={form}", f"gates.reject=structure < {limit!r}", "gates.keep_rejected=true"]  # fmt: skip
    output = render("out", *changes).output
    expected = digests(output)
    former = {row["key"]: row for row in plain.to_pylist() if row["structure"] < limit}
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(output.glob("rejected/*")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                key, _, ending = member.name.partition(".")
                found.setdefault(key, {})[ending] = file.read()
    assert list(found) == list(former)
    for key, members in found.items():
        told = json.loads(members["json"])
        assert hashlib.sha256(members["png"]).hexdigest() == told["sha256"] == former[key]["sha256"]
        assert (told["status"], told["structure"]) == ("rejected", former[key]["structure"])
    assert list(verify(output)) == []
    loaded = datasets.load_dataset(str(output), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == len(plain) - len(former)
    victim = max(output.glob("rejected/*.tar"))
    whole = victim.read_bytes()
    found_as = {"longer": whole + b"?", "changed": whole[:-700] + b"?" + whole[-699:]}
    for damage in damages:
        victim.unlink() if damage == "lost" else victim.write_bytes(found_as[damage])
        assert [problem.path for problem in verify(output)] == [str(victim)]
        # of the right size: `verify` alone reads it
        if damage == "changed":
            assert repair(output).exit_code == 0
        else:
            assert render("out", *changes).num_attempted > 0
        assert digests(output) == expected
    (output / "rejected/train-00009.tar").write_bytes(b"")
    assert [problem.shard for problem in verify(output)] == [None]


RETRY = "gates.retry=[{gamma: 1.0, tau: 1.0}, {gamma: 0.1}]"


def rule_of(limit: float) -> str:
    """What looks so little like its content is rejected; at the second attempt that of one style alone, and at the third again."""
    return f"structure < {limit!r} and (gamma < 0.9 or style_id = '00.png')"


@pytest.fixture(scope="module")
def tried(manifest: Path, plain: pa.Table) -> tuple[Path, list[str]]:
    """A run whose rejected samples are tried again, and its changes: of six in a shard, 0.9 are all."""
    changes = [f"gates.reject={rule_of(limit_of(plain, 0.75))}", RETRY, "gates.yield=0.9"]
    output = str(manifest.parent / "tried")
    return run(load_spec(manifest, changes, output=output)).output, changes


def test_attempts_end_where_a_sample_passes_or_the_ladder_does(
    tried: tuple[Path, list[str]], plain: pa.Table
) -> None:
    limit = limit_of(plain, 0.75)
    rows = rows_of(tried[0]).to_pylist()
    seen = set()
    for row, former in zip(rows, plain.to_pylist(), strict=True):
        number, reasons = row["attempt"], row["rejections"].split("; ") if row["rejections"] else []
        seen.add((number, row["status"]))
        assert len(reasons) == number - 1
        assert all(reason.startswith(f"attempt {n + 1}") for n, reason in enumerate(reasons))
        assert (row["gamma"], row["tau"]) == {1: (0.75, 1.5), 2: (1.0, 1.0), 3: (0.1, 1.5)}[number]
        if former["structure"] >= limit:
            assert (number, row["status"], row["sha256"]) == (1, "success", former["sha256"])
        elif row["style_id"] != "00.png":
            assert (number, row["status"]) == (2, "success")
        else:
            assert (row["structure"] < limit) == (row["status"] == "rejected")
    assert {(1, "success"), (2, "success"), (3, "rejected")} <= seen


def test_nothing_is_tried_again_where_enough_passed(render: Render, plain: pa.Table) -> None:
    rule = f"gates.reject=structure < {limit_of(plain, 0.5)!r}"
    many, some = (
        rows_of(render(name, rule, RETRY, f"gates.yield={share}").output)
        for name, share in (("many", 1.0), ("some", 0.01))
    )
    bad = [value < limit_of(plain, 0.5) for value in plain["structure"].to_pylist()]
    assert [number > 1 for number in many["attempt"].to_pylist()] == bad
    # a shard is counted by itself, and in each one passes before any is tried again
    tried = [number > 1 for number in some["attempt"].to_pylist()]
    assert sum(tried) < sum(bad)
    assert some["sha256"].to_pylist()[0] == many["sha256"].to_pylist()[0]


def test_resumes_and_repairs_keep_the_bytes(
    render: Render, tried: tuple[Path, list[str]], tmp_path: Path
) -> None:
    whole, changes = tried
    expected = digests(whole)
    assert {1, 2, 3} <= set(rows_of(whole)["attempt"].to_pylist())
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    for victim in ("metadata/train-00001_stats.json", "metadata/train-00000.parquet"):
        (copy / victim).unlink()
        (copy / "gallery.html").unlink()
        render("copy", *changes)
        assert digests(copy) == expected
    tar = copy / "data/train-00001.tar"
    tar.write_bytes(tar.read_bytes()[:-600] + b"x" * 600)
    assert [problem.shard for problem in verify(copy)] == [1]
    assert repair(copy).exit_code == 0
    assert digests(copy) == expected
    with pytest.raises(PlanChangedError, match=r"gates\.yield: 0\.9 -> 0\.8"):
        render("copy", *changes, "gates.yield=0.8")
    with pytest.raises(PlanChangedError, match=r"gates\.reject\.default"):
        render("copy", *changes, "gates.reject=structure < 0")
    with pytest.raises(PlanChangedError, match="gates"):
        render("copy")


def test_another_style_is_one_that_the_content_meets_nowhere(render: Render) -> None:
    sampled = ["pairing={mode: sample, per_content: 1}", "engine.feature_gb=1"]
    first = rows_of(render("plain", *sampled).output).to_pylist()
    done = render("out", *sampled, "gates.reject=true", "gates.retry=[{style: next}]", "gates.attempts=4")  # fmt: skip
    rows = rows_of(done.output).to_pylist()
    for row, former in zip(rows, first, strict=True):
        # 3 styles: the planned one, two others, and then there is none
        assert row["attempt"] == 3
        tried = {former["style_id"], row["style_id"]}
        tried |= {part.partition("style ")[2].partition(")")[0] for part in row["rejections"].split("; ")[1:]}  # fmt: skip
        assert len(tried) == 3
        assert row["content_id"] == former["content_id"]
        assert row["seed"] != former["seed"]


def test_a_failed_sample_is_not_judged(manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(manifest.parent, folder, ignore=shutil.ignore_patterns("plain", "tried"))
    broken = folder / "styles/01.png"
    broken.write_bytes(broken.read_bytes()[:60])
    changes = ["gates.reject=true", "gates.retry=[{gamma: 0.5}]", "max_failed_fraction=1"]
    done = run(load_spec(folder / "run.yaml", changes, output=str(tmp_path / "out")))
    rows = rows_of(done.output).to_pylist()
    assert {(row["style_id"] == "01.png", row["status"], row["attempt"]) for row in rows} == {
        (True, "failed", 1),
        (False, "rejected", 2),
    }
    assert all(row["rejections"] is not None for row in rows)


def test_prompts_are_drawn_by_another_seed(tmp_path: Path) -> None:
    changes = {"image": {"size": 32}, "engine": {"name": "local", "threads": 1, "batch": 8}}
    rows = write_prompts(tmp_path, "text2img", "tiny", **changes)
    first = run(load_spec(rows, output=str(tmp_path / "plain"))).output
    gates = ["gates.reject=id is not null", "gates.retry=[{seed: next}]", "gates.attempts=3"]
    again = run(load_spec(rows, gates, output=str(tmp_path / "out"))).output
    former, last = rows_of(first).to_pylist(), rows_of(again).to_pylist()
    assert all(row["attempt"] == 3 and row["status"] == "rejected" for row in last)
    assert all(one["seed"] != other["seed"] for one, other in zip(former, last, strict=True))
    assert len({row["seed"] for row in last}) == len(last)
    assert all(
        one["contrast"] != other["contrast"] for one, other in zip(former, last, strict=True)
    )


def test_a_plan_tells_what_gates_cost_by_a_preview(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "out")

    def told(*changes: str) -> Any:
        arguments = [f"--set={change}" for change in changes]
        assert main(["plan", str(manifest), "--output", output, "--json", *arguments]) == 0
        return json.loads(capsys.readouterr().out)["gates"]

    rule = "gates.reject=style_id = '00.png'"
    assert told(rule) == {
        "preview": None, "samples": 0, "rejected_at_first": 0, "further_evaluations": None, "rejected_share": None,
    }  # fmt: skip
    run(load_spec(manifest, output=output), limit=6)
    found = told(rule, RETRY)
    # a third of 12 samples, at one further attempt or two, of one evaluation each
    reverse = found["further_evaluations"][0] // 4
    assert reverse >= 1
    assert (found["samples"], found["rejected_at_first"]) == (6, 2)
    assert found["further_evaluations"] == [4 * reverse, 8 * reverse]
    assert told(rule, RETRY, "gates.yield=0.5")["further_evaluations"] == [0, 0]
    assert told(rule)["rejected_share"] == pytest.approx(1 / 3)
    run(load_spec(manifest, [rule, RETRY], output=output), limit=3)
    found = told(rule, RETRY)
    assert found["preview"].endswith("out-preview-3")
    assert (found["samples"], found["rejected_at_first"]) == (3, 1)
    assert found["further_evaluations"] == [8 * reverse] * 2
    assert found["rejected_share"] == pytest.approx(1 / 3)
    # pictures of another method say nothing
    assert told(rule, RETRY, "method.tau=1")["preview"] is None
    assert main(["plan", str(manifest), "--set", "gates.reject=structur < 1"]) == 2
    assert "did you mean structure" in capsys.readouterr().err


def test_near_duplicates_are_told(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(manifest.parent, folder, ignore=shutil.ignore_patterns("plain", "tried"))
    # the same picture under two names, in another size, in two splits
    for split, name, size in (("train", "a.png", 48), ("validation", "b.png", 96)):
        (folder / "contents" / split).mkdir()
        with Image.open(folder / "contents/00.png") as image:
            image.resize((size, size)).save(folder / "contents" / split / name)
    (folder / "contents/01.png").rename(folder / "contents/train/c.png")
    for left in folder.glob("contents/*.png"):
        left.unlink()
    spec = load_spec(folder / "run.yaml", ["split=source"], output=str(tmp_path / "out"))
    done = run(spec)
    duplicates = done.report.duplicates
    assert (duplicates.contents, duplicates.results, duplicates.looked_at) == (1, 3, 9)
    lines = "\n".join(done.report.lines())
    assert "in another split too: 1, such as train/a.png of train and validation/b.png of validation" in lines  # fmt: skip
    assert "results that nearly repeat another: 3 of 9, such as 00" in lines
    assert "Near-duplicates: results that nearly repeat another: 3" in (done.output / "README.md").read_text()  # fmt: skip
    # what markers tell may be gone or edited: then nothing is said of those shards
    for path in done.output.glob("metadata/*_stats.json"):
        stats = json.loads(path.read_text())
        stats["looks"]["samples"] = stats["looks"]["samples"][:40]
        path.write_text(json.dumps(stats))
    assert report(done.output).duplicates.looked_at <= 1
    capsys.readouterr()
