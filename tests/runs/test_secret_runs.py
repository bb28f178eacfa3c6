"""Runs whose manifest holds a credential write it nowhere, and resume when it has changed."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from stylebatch.cli import main
from tests.support.images import picture, write_inputs, write_manifest

SECRET = "hunter2Xq"


def everything(output: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(output.rglob("*")) if path.is_file())


def tars(output: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((output / "data").glob("*.tar"))]


def test_run_with_a_secret_in_its_cache_resumes_and_is_repaired_without_it(
    tmp_path: Path, eps_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path, contents=2, styles=1)
    address, output = f"host/styles-{uuid4().hex}", tmp_path / "out"

    def manifest(password: str) -> str:
        cache = f"memory://user:{password}@{address}"
        return str(write_manifest(
            tmp_path, eps_folder, method={"name": "styleid", "steps": 2},
            features={"cache": cache, "source": "cached"}, output={"path": str(output), "shard_size": 1},
        ))  # fmt: skip

    assert main(["plan", "--json", manifest(SECRET)]) == 0
    digest = json.loads(capsys.readouterr().out)["digest"]
    assert main(["run", manifest(SECRET)]) == 0
    made = tars(output)
    assert json.loads((output / "run.json").read_text())["digest"] == digest
    stats = sorted((output / "metadata").glob("*_stats.json"))
    stats[0].unlink()
    assert main(["run", manifest(SECRET + "rotated")]) == 0
    (output / "data" / "train-00000.tar").write_bytes(b"damaged")
    assert main(["repair", str(output)]) == 0
    assert tars(output) == made
    printed = capsys.readouterr()
    assert SECRET.encode() not in everything(output)
    assert SECRET not in printed.out + printed.err
    for verb in ("ls", "verify"):
        main(["cache", verb, f"memory://user:{SECRET}@{address}"])
    main(["cache", "ls", f"nosuch://user:{SECRET}@{address}"])
    main(
        [
            "run",
            manifest(SECRET),
            "--set",
            f"features.cache=nosuch://k:{SECRET}@b",
            "--output",
            str(tmp_path / "o2"),
        ]
    )
    main(
        [
            "run",
            manifest(SECRET),
            "--set",
            f"model.id=https://user:{SECRET}@hf.co/a/b",
            "--output",
            str(tmp_path / "o3"),
        ]
    )
    main(["plan", manifest(SECRET), "--set", f"features.source=s3://user:{SECRET}@b"])
    printed = capsys.readouterr()
    assert "***" in printed.out + printed.err
    assert SECRET not in printed.out + printed.err


def test_signed_url_of_a_row_is_in_no_file_and_not_in_the_plan(
    tmp_path: Path, eps_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path, contents=1, styles=1)
    picture(3).save(tmp_path / "local.png")
    digests = set()
    for signature in (SECRET, f"{SECRET}rotated"):
        (tmp_path / "contents.csv").write_text(
            f"path,label\nlocal.png,a\nhttps://user:{SECRET}@host/b.png?X-Amz-Signature={signature},b\n"
        )
        manifest = write_manifest(
            tmp_path, eps_folder, method={"name": "styleid", "steps": 2},
            contents={"path": "contents.csv"}, max_failed_fraction=1,
        )  # fmt: skip
        assert main(["plan", "--json", str(manifest)]) == 0
        digests.add(json.loads(capsys.readouterr().out)["digest"])
        assert main(["run", str(manifest)]) == 0
        printed = capsys.readouterr()
        assert SECRET not in printed.out + printed.err
    assert len(digests) == 1
    assert SECRET.encode() not in everything(tmp_path / "out")
