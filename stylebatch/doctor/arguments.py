"""Arguments of `stylebatch doctor`; light, since `--help` reads them."""

from __future__ import annotations

import argparse


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL and how it is read."""
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a known name, a pipeline folder, a .safetensors file, or a hub id; without it, this machine is checked",
    )
    parser.add_argument(
        "--config", metavar="DIR", help="folder with the configs and tokenizers of a single file"
    )
    parser.add_argument("--variant", metavar="V", help="variant of the weights, such as fp16")
    parser.add_argument("--dtype", metavar="T", help="auto, float32, float16 or bfloat16")
    parser.add_argument(
        "--size", type=int, metavar="PX", help="pixels per side that memory and speed are told for"
    )
    parser.add_argument(
        "--no-measure", action="store_true", help="read files only: load nothing, measure no speed"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
