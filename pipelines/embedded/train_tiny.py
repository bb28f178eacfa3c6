"""Train the embedded model, stage by stage, with the product's own `stylebatch train`; each stage resumes.

    python -m pipelines.embedded.assemble_tiny_data --packages work/packages --out work/pictures
    python -m pipelines.embedded.train_tiny data --pictures work/pictures
    export OMP_NUM_THREADS=1
    torchrun --nproc_per_node 2 -m stylebatch train manifests/train/tiny_vae.yaml
    torchrun --nproc_per_node 2 -m stylebatch train manifests/train/tiny_unet.yaml
    stylebatch train manifests/train/tiny_style.yaml
    python -m pipelines.embedded.train_tiny install

`data` writes crops to outputs/tiny-data and random networks to outputs/tiny-untrained; `install` copies the
trained folder into the package and writes its fingerprint; with `--share 0.4 --parts unet` the weights of that part become
0.4 of the trained and 0.6 of those that are there. Figures to expect: docs/embedded_model.md.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pipelines.embedded import crops
from pipelines.embedded.untrained import halve, write_untrained
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.pipeline_files import COMPONENTS, TINY

OUTPUTS = Path("outputs")


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["data", "install"])
    parser.add_argument("--pictures", type=Path, help="folder written by assemble_tiny_data.py")
    parser.add_argument("--styles", type=int, default=400, help="procedural styles")
    parser.add_argument("--trained", type=Path, default=OUTPUTS / "tiny-style/model")
    parser.add_argument("--model", type=Path, default=TINY)
    parser.add_argument("--parts", nargs="+", choices=COMPONENTS, default=list(COMPONENTS))
    parser.add_argument("--share", type=float, default=1.0, help="of the trained weights, 0 to 1")
    arguments = parser.parse_args()
    if arguments.stage == "data":
        made = crops.build(arguments.pictures, arguments.styles, 16)
        made.save(OUTPUTS / "tiny-data")
        write_untrained(sorted(set(made.captions)), OUTPUTS / "tiny-untrained")
        return
    for part in arguments.parts:
        install(arguments.trained / part, arguments.model / part, arguments.share)
    halve(arguments.model)  # before the fingerprint, which hashes the stored files
    fingerprint = Checkpoint(arguments.model).fingerprint
    (arguments.model / "FINGERPRINT").write_text(fingerprint + "\n")
    print(fingerprint)


def install(trained: Path, into: Path, share: float) -> None:
    """Copy a part, its weights mixed with those that are there unless `share` is 1."""
    mixed = {}
    for path in into.glob("*.safetensors") if share < 1.0 else ():
        former, new = load_file(path), load_file(trained / path.name)
        mixed[path] = {
            key: torch.lerp(value.float(), new[key].float(), share).to(value.dtype)
            for key, value in former.items()
        }
    shutil.copytree(trained, into, dirs_exist_ok=True)
    for path, tensors in mixed.items():
        save_file(tensors, path, {"format": "pt"})


if __name__ == "__main__":
    main()
