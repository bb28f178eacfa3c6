"""What an output directory holds and who may write to it: run.json, commits, the run lock."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from stylebatch.errors import ManifestError, OutputLockedError, PlanChangedError
from stylebatch.store.commit import create_exclusive, remove_temporaries, write_bytes

HEARTBEAT_S = 5.0
STALE_AFTER_S = 60.0
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
        for folder in (self.output, self.output / "data", self.output / "metadata"):
            remove_temporaries(folder)


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


class RunLock:
    """One writer per output directory: a file with owner and heartbeat, taken over when its owner died.

    A live owner on another host is known by a heartbeat younger than a minute; on this host by its
    process. Raises OutputLockedError, naming the owner.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / ".run.lock"
        self.owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _process_start(os.getpid()),
            "token": os.urandom(8).hex(),
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="run-lock")

    def __enter__(self) -> RunLock:
        while not create_exclusive(self.path, self._content()):
            holder = read_json(self.path)
            if holder is not None and not self._dead(holder):
                raise OutputLockedError(
                    f"{self.path.parent} is being written by process {holder.get('pid')} on {holder.get('host')} "
                    f"(last seen {max(0.0, time.time() - float(holder.get('heartbeat', 0))):.0f} s ago). "
                    "Next: wait for it, stop it, or give this run another directory with --output DIR."
                )
            self._set_aside(holder)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._ours():
            self.path.unlink(missing_ok=True)

    def _set_aside(self, holder: dict[str, Any] | None) -> None:
        """Remove a dead owner's lock; renaming first lets exactly one taker win."""
        grave = self.path.with_name(f"{self.path.name}.{self.owner['token']}")
        try:
            os.rename(self.path, grave)
        except FileNotFoundError:
            return
        if read_json(grave) != holder:
            os.replace(grave, self.path)
            return
        grave.unlink()

    def _dead(self, holder: dict[str, Any]) -> bool:
        try:
            pid, heartbeat = int(holder["pid"]), float(holder["heartbeat"])
        except (KeyError, TypeError, ValueError):
            return True
        if holder.get("host") == self.owner["host"]:
            return _process_start(pid) != holder.get("started")
        return time.time() - heartbeat > STALE_AFTER_S

    def _ours(self) -> bool:
        holder = read_json(self.path)
        return holder is not None and holder.get("token") == self.owner["token"]

    def _content(self) -> bytes:
        return json.dumps({**self.owner, "heartbeat": time.time()}).encode()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            if not self._ours():
                return
            with contextlib.suppress(OSError):  # a full disk may recover; the next beat tries again
                write_bytes(self.path, self._content())


def _process_start(pid: int) -> str | None:
    """Start time of a live process of this host (it tells a reused pid apart), or None."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return "alive"
        return "alive"
    return stat.rsplit(")", 1)[1].split()[19]
