"""`make soak`: kill -9 runs at random times, and compare each result with an undisturbed run.

    python -m pipelines.proofs.soak --kills 100 --out outputs/soak
    python -m pipelines.proofs.soak --kills 30 --engine ray --out outputs/soak-ray

A line of JSON per round in OUT/rounds.jsonl; exit 1 if any end differs. About 5 s per local kill, 20 s per Ray kill (2 cores).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from pipelines.proofs.crashes import WORKERS, Setup, command, digests, kill_and_resume

PER_ROUND = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--manifest", type=Path, default=Path("manifests/demo.yaml"))
    parser.add_argument("--out", type=Path, default=Path("outputs/soak"))
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # beside other work Ray's workers would starve
    args.out.mkdir(parents=True, exist_ok=True)
    options = ["--engine", "ray", "--workers", "2"] if args.engine == "ray" else []
    setting = ["--set", "method.steps=10"] if options else []  # so that kills fall into rendering
    # every other kill is of a worker: the run goes on, and may lose more
    victims = [*WORKERS, "worker"] if args.engine == "ray" else ["driver"]
    undisturbed = args.out / "undisturbed"
    subprocess.run(command(args.manifest, undisturbed, setting), check=True)
    setup = Setup(
        args.manifest, args.out / "killed", digests(undisturbed),
        options=options, setting=setting, victims=victims, at_most_s=12.0 if options else 5.0,
    )  # fmt: skip
    draw, kills, failures = random.Random(args.seed), 0, 0
    with (args.out / "rounds.jsonl").open("a") as log:
        while kills < args.kills:
            done = kill_and_resume(setup, draw, PER_ROUND)
            kills += len(done.kills)
            failures += not done.same
            log.write(json.dumps(asdict(done)) + "\n")
            log.flush()
            print(f"{kills} kills, {failures} ends that differ", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
