"""Benchmarks: ratios measured side by side in one process; writes OUT/bench.json beside what it prints.

    OMP_WAIT_POLICY=PASSIVE python -m pipelines.bench --parts naive efficiency

Only figures of a machine that does nothing else count; those of `--quick` never do. `profile` and `trials` run by
name only. Exit code 1 when a part did not run or nothing was measured; a missed target is only marked.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.bench.cache import cache
from pipelines.bench.codecs import codecs
from pipelines.bench.efficiency import efficiency
from pipelines.bench.evaluations import evaluations
from pipelines.bench.memory import memory
from pipelines.bench.naive import naive
from pipelines.bench.profiling import profile, trials
from pipelines.bench.record import Part, Size, measure
from pipelines.bench.throughput import throughput

PARTS: dict[str, Part] = {
    "naive": naive,
    "efficiency": efficiency,
    "memory": memory,
    "cache": cache,
    "codecs": codecs,
    "evaluations": evaluations,
    "io": throughput,
    "profile": profile,
    "trials": trials,
}
DEFAULT = list(PARTS)[:7]  # without `profile` and `trials`


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts; 0 if all of them measured something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=DEFAULT)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    args = parser.parse_args(arguments)
    chosen = {name: PARTS[name] for name in args.parts}
    size = Size(args.quick, args.threads)
    failures = measure(
        chosen, size, args.out / "bench.json", say=lambda text: print(text, flush=True)
    )
    for failure in failures:
        print(f"bench: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
