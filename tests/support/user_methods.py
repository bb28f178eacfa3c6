"""A manifest for a method of a user's, by its code."""

from __future__ import annotations

import json
from pathlib import Path

HEAD = """import os, sys, torch
from pydantic import field_validator
from stylebatch import PromptMethod

class Mine(PromptMethod):
"""
RENDER = "    def render(self, model, samples, *, batch=16):\n"


def written(folder: Path, code: str) -> Path:
    """A manifest of four rows for a method with this code."""
    (folder / "mine.py").write_text(code)
    manifest = folder / "run.yaml"
    document = {
        "name": "mine",
        "prompts": {"template": "a {x}", "values": {"x": ["b", "c", "d", "e"]}},
        "method": {"path": "mine.py:Mine", "steps": 1},
        "model": "tiny",
        "image": {"size": 32},
        "engine": {"name": "local", "threads": 1},
        "max_failed_fraction": 1.0,
        "output": {"path": str(folder / "out")},
    }
    manifest.write_text(json.dumps(document))
    return manifest
