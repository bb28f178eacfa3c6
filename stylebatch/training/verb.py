"""`stylebatch train`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from stylebatch.manifest import load_document
from stylebatch.progress import Progress, for_terminal
from stylebatch.training import trainer
from stylebatch.training.spec import TrainSpec, join_inputs


def train(args: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Train by `args.manifest`; ranks but the first say nothing."""
    spec = load_document(args.manifest, args.overrides, TrainSpec, join_inputs, output=args.output)
    main_process = environment.get("RANK", "0") == "0"
    result = trainer.train(spec, for_terminal() if main_process else Progress())
    if main_process:
        measures = ", ".join(f"{name} {value:.4g}" for name, value in result.measures.items())
        print(f"Trained {spec.stage} for {result.steps} steps ({measures})\n"
              f"{result.model}: use it as `model: {{path: {result.model}}}`")  # fmt: skip
    return 0
