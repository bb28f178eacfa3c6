"""Checkpoints of a training run. The newest is continued, old ones are deleted.

accelerate writes them under a temporary name; when every process is done they are renamed, so a folder `step-N` is complete.
`run.json` beside them records the settings; a run with other settings is refused, with the differences.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

from stylebatch.errors import PlanChangedError
from stylebatch.training.spec import FREE_TO_CHANGE, TrainSpec

CHECKPOINTS = "checkpoints"


def newest(folder: Path) -> tuple[Path, int] | None:
    """The checkpoint of the highest step, and that step."""
    found = [
        (int(m[1]), path)
        for path in folder.glob("step-*")
        if (m := re.fullmatch(r"step-(\d+)", path.name))
    ]
    return (max(found)[1], max(found)[0]) if found else None


def save(accelerator: Accelerator, folder: Path, step: int, keep: int) -> None:
    """Write `step-N` and delete all but the `keep` newest. Call it on every process."""
    target, partial = folder / f"step-{step:07d}", folder / f".tmp-step-{step:07d}"
    if target.exists():
        return
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    # every process writes its random states
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        os.replace(partial, target)
        complete = sorted(folder.glob("step-*"))  # by name: steps are padded with zeros
        for old in complete[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def check_same_run(
    path: Path, spec: TrainSpec, identity: dict[str, Any], num_processes: int
) -> None:
    """Record the settings of a new run, or compare them with the recorded ones of a run that has checkpoints.

    A run without checkpoints may be replaced: a config that failed at the first try must not block the corrected one.
    Raises PlanChangedError with every field that differs.
    """
    if require_same_run(path, spec, identity, num_processes) is None:
        now = _settings(spec, identity, num_processes)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)


def _settings(spec: TrainSpec, identity: dict[str, Any], num_processes: int) -> dict[str, Any]:
    free = set(FREE_TO_CHANGE)
    return {
        "spec": spec.model_dump(mode="json", exclude=free),
        **identity,
        "processes": num_processes,
    }


def require_same_run(
    path: Path, spec: TrainSpec, identity: dict[str, Any], num_processes: int
) -> tuple[Path, int] | None:
    """The checkpoint that is continued, and its step; None for a new run. Raises as `check_same_run`, and writes nothing."""
    found = newest(path.parent / CHECKPOINTS)
    if not path.exists() or found is None:
        return None
    now = _settings(spec, identity, num_processes)
    before = json.loads(path.read_text(encoding="utf-8"))
    with suppress(KeyError, ValueError):
        before["spec"] = _with_defaults(before["spec"], spec)
    differences = list(_differences("", before, now))
    if differences:
        raise PlanChangedError(
            f"{path}: this output was begun with other settings:\n" + "\n".join(differences) + "\n"
            "Next: give another `output`, or delete this one to begin afresh."
        )
    return found


def _with_defaults(recorded: dict[str, Any], spec: TrainSpec) -> dict[str, Any]:
    """A recorded spec with the defaults of fields that an earlier version did not know."""
    free = set(FREE_TO_CHANGE)
    whole = spec.model_dump(mode="json", include=free) | recorded
    return TrainSpec.model_validate(whole).model_dump(mode="json", exclude=free)


def _differences(where: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(
                f"{where}.{key}" if where else key, before.get(key), now.get(key)
            )
    elif before != now:
        yield f"  {where}: was {json.dumps(before)}, is {json.dumps(now)}"


class StopRequest:
    """Remembers SIGINT or SIGTERM, so that the current step is finished first."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.signum = 0

    def agreed(self) -> int:
        """The signal that any process received, 0 for none; the same on all processes."""
        # Launchers signal one process or all, at different steps; stopping alone would hang the others in a collective.
        seen = torch.tensor([self.signum], device=self.accelerator.device)
        return int(self.accelerator.gather(seen).max())

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Remember the first signal inside the block; a second one acts as usual. Main thread only."""
        # Python installs handlers in the main thread alone.
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        former = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}

        def note(signum: int, frame: FrameType | None) -> None:
            self.signum = signum
            signal.signal(signum, former[signal.Signals(signum)])

        for sig in former:
            signal.signal(sig, note)
        try:
            yield self
        finally:
            for sig, handler in former.items():
                signal.signal(sig, handler)
