"""StyleID over the demo images from Python, in both of its conventions.

    python pipelines/styleid_demo.py             # the paper's code: 50 steps, sites 6..11; about two minutes on 2 cores
    python pipelines/styleid_demo.py diffusers   # the authors' port: 20 steps, sites 7..11; about one minute

Leaves 36 labelled samples, a contact sheet and a gallery in outputs/styleid-CONVENTION.
"""

from __future__ import annotations

import sys
from pathlib import Path

import stylebatch
from stylebatch import RunSpec

DEMO = Path(__file__).resolve().parent.parent / "manifests" / "demo"


def spec(convention: str = "ldm") -> RunSpec:
    """The demo in one convention; every field that is not given has its default."""
    return RunSpec.model_validate(
        {
            "name": f"styleid-{convention}",
            "contents": {"path": str(DEMO / "contents")},
            "styles": {"path": str(DEMO / "styles")},
            "method": {"name": "styleid", "convention": convention},
            # two shards for 36 pairs, so that stopping and resuming can be tried
            "output": {"path": f"outputs/styleid-{convention}", "shard_size": 18},
        }
    )


if __name__ == "__main__":
    result = stylebatch.run(spec(*sys.argv[1:2]))
    sys.stdout.write("\n".join(result.report.lines()) + "\n")
    sys.exit(result.exit_code)
