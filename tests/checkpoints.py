"""Small random checkpoints that stock pipelines load: like SD 2.x with v prediction, and like SDXL."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import link_folder


def with_schedule(source: Path, target: Path, **settings: object) -> Path:
    """A linked copy of a pipeline folder with other scheduler settings."""
    config = json.loads((source / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    link_folder(source, target, without=("scheduler/scheduler_config.json",))
    (target / "scheduler").mkdir(exist_ok=True)
    (target / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(config | settings), encoding="utf-8"
    )
    return target
