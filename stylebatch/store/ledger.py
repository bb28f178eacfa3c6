"""What an output directory holds: run.json, commits, poisoned shards."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.store.commit import remove_temporaries, write_bytes

_POISON = "_poison.json"


def read_json(path: Path) -> dict[str, Any] | None:
    """Parsed file, or None when it is absent or not whole."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True)
class Ledger:
    """Records of one output directory."""

    output: Path

    @property
    def run_path(self) -> Path:
        return self.output / "run.json"

    def open(self, run: dict[str, Any]) -> dict[str, Any]:
        """Begin or resume: write `run` to run.json, or return what is there if its identity agrees.

        Raises PlanChangedError with a readable diff when the directory holds another plan, and
        ManifestError when it holds something else than a run.
        """
        former = read_json(self.run_path)
        if former is None:
            self._require_empty()
            write_bytes(self.run_path, _pretty(run))
            return run
        self.sweep()
        if not any((self.output / "metadata").glob("*_stats.json")):
            if former.get("digest") != run["digest"]:
                self._discard_uncommitted()
            write_bytes(self.run_path, _pretty(run))  # nothing was committed: nothing to protect
            return run
        if former.get("digest") == run["digest"]:
            return former
        if former.get("digest") in [g["digest"] for g in run.get("generations", [])]:
            grown = {**run, "resolved": former["resolved"]}
            write_bytes(self.run_path, _pretty(grown))
            return grown
        changes = "\n".join(
            f"  {line}" for line in diff(former.get("identity", {}), run["identity"])
        )
        raise PlanChangedError(
            f"{self.output} holds shards of another plan; these differ:\n"
            f"{changes or '  (unknown: run.json is of another version)'}\n"
            "Next: give the changed run a directory of its own with --output DIR, or remove the old one."
        )

    def _discard_uncommitted(self) -> None:
        """Remove tars and metadata of another plan that never got their commit: this one may not have such shards."""
        for pattern in ("data/train-*.tar", "metadata/train-*.parquet"):
            for path in self.output.glob(pattern):
                path.unlink(missing_ok=True)

    def _require_empty(self) -> None:
        if self.run_path.exists():
            raise ManifestError(
                f"output.path: {self.run_path} is damaged; restore it, or choose another directory"
            )
        names = [p.name for p in self.output.iterdir()] if self.output.is_dir() else []
        strangers = sorted(name for name in names if not name.startswith("."))
        if strangers:
            raise ManifestError(
                f"output.path: {self.output} holds no run.json, but other files "
                f"({', '.join(strangers[:5])}); accepted: a new or empty directory, or one of an earlier run"
            )

    def stats(self, name: str, plan_digest: str) -> dict[str, Any] | None:
        """Stats of a committed shard of this plan, or None."""
        stats = read_json(self.output / "metadata" / f"{name}_stats.json")
        if stats is None or stats.get("plan_digest") != plan_digest:
            return None
        tar = self.output / "data" / f"{name}.tar"
        try:
            metadata = (self.output / "metadata" / f"{name}.parquet").read_bytes()
        except OSError:
            return None
        if hashlib.sha256(metadata).hexdigest() != stats["metadata_sha256"]:
            return None
        if stats["num_success"] and not (tar.is_file() and tar.stat().st_size == stats["bytes"]):
            return None
        return stats

    def revoke(self, name: str) -> None:
        """Take a shard's commit back: its files stay until they are rendered again."""
        (self.output / "metadata" / f"{name}_stats.json").unlink(missing_ok=True)

    def poison(self, name: str, facts: dict[str, Any]) -> None:
        """Record that a shard failed too often; its commit, or a new start of the run, removes the record."""
        write_bytes(self._poison_path(name), _pretty(facts))

    def poisoned(self) -> dict[str, dict[str, Any]]:
        """What is recorded of shards that failed too often, by name."""
        paths = sorted((self.output / "metadata").glob(f"*{_POISON}"))
        return {path.name.removesuffix(_POISON): read_json(path) or {} for path in paths}

    def forgive(self) -> None:
        """Give poisoned shards new attempts."""
        for name in self.poisoned():
            self._poison_path(name).unlink(missing_ok=True)

    def _poison_path(self, name: str) -> Path:
        return self.output / "metadata" / f"{name}{_POISON}"

    def sweep(self) -> None:
        """Remove what writers that were killed left under temporary names; nobody may be writing."""
        for name in ("", "data", "metadata", "inputs"):
            remove_temporaries(self.output / name)


def diff(old: Any, new: Any, path: str = "") -> list[str]:
    """Readable differences of two JSON values: `method.gamma: 0.75 -> 0.5`."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            lines += diff(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return lines
    if old == new:
        return []
    if isinstance(old, str) and isinstance(new, str) and len(old) == len(new) == 64:
        what = (
            "the model's files" if path == "model_fingerprint" else "file names, labels or captions"
        )
        return [f"{path}: {what} changed"]
    return [f"{path}: {json.dumps(old)} -> {json.dumps(new)}"]


def _pretty(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
