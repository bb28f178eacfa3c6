"""Assemble the demo images and the training images of the embedded model.

    python -m pipelines.embedded.assemble_tiny_data --packages work/packages --out work/pictures

Downloads a handful of Debian packages (bookworm) into ``--packages`` unless they are there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.embedded.assemble import write_demo, write_training
from pipelines.embedded.sources import fetch, pictures

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> None:
    """Fetch what is missing, then write the demo, the training pictures and the data card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--out", type=Path, required=True, help="folder for the training pictures")
    parser.add_argument("--demo", type=Path, default=REPOSITORY / "manifests/demo")
    parser.add_argument("--card", type=Path, default=REPOSITORY / "stylebatch/models/tiny/DATA.md")
    arguments = parser.parse_args()
    fetch(arguments.packages)
    everything = list(pictures(arguments.packages))
    print(f"{write_demo(everything, arguments.demo)} demo images")
    print(f"{write_training(everything, arguments.out, arguments.card)} training pictures")


if __name__ == "__main__":
    main()
