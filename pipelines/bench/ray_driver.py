"""Benchmarks of the ray engine's driver on one machine; writes OUT/bench_ray.json beside what it prints.

    OMP_WAIT_POLICY=PASSIVE python -m pipelines.bench.ray_driver --parts queue scheduling

Workers sleep instead of computing; loop and queue are those of a run. Exit code 1 when a part did not run or nothing
was measured; a missed target is only marked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.bench.affinity import affinity
from pipelines.bench.ray_scheduling import queue, scheduling
from pipelines.bench.record import Part, Size, measure

PARTS: dict[str, Part] = {"queue": queue, "affinity": affinity, "scheduling": scheduling}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts; 0 if all of them measured something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    args = parser.parse_args(arguments)
    chosen = {name: PARTS[name] for name in args.parts}
    failures = measure(
        chosen,
        Size(args.quick),
        args.out / "bench_ray.json",
        say=lambda text: print(text, flush=True),
    )
    for failure in failures:
        print(f"bench_ray: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
