"""Benchmarks: ratios measured side by side in one process, printed and written to OUT/bench.json.

    python pipelines/bench.py --parts naive efficiency memory cache codecs evaluations

Exits 1 and says which part failed when one did not run or measured nothing. `profile` and `trials` are run by name only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from stylebatch.bench.cache import cache
from stylebatch.bench.codecs import codecs
from stylebatch.bench.efficiency import efficiency
from stylebatch.bench.evaluations import evaluations
from stylebatch.bench.memory import memory
from stylebatch.bench.naive import naive
from stylebatch.bench.profiling import profile, trials
from stylebatch.bench.record import Part, Size, measure

PARTS: dict[str, Part] = {
    "evaluations": evaluations,
    "naive": naive,
    "efficiency": efficiency,
    "memory": memory,
    "cache": cache,
    "codecs": codecs,
    "profile": profile,
    "trials": trials,
}
DEFAULT = [name for name in PARTS if name not in ("profile", "trials")]


def main(arguments: list[str] | None = None) -> int:
    """Run the parts asked for; 0 when all measured something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=DEFAULT)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--quick", action="store_true", help="seconds in all; figures mean nothing")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    size = Size(is_quick=args.quick, threads=args.threads)
    chosen = {name: PARTS[name] for name in args.parts}
    failures = measure(
        chosen, size, args.out / "bench.json", say=lambda text: print(text, flush=True)
    )
    for failure in failures:
        print(f"bench: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
