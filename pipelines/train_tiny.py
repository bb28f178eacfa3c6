"""Train the embedded model on CPU, stage by stage; each stage resumes from its checkpoint.

    export OMP_NUM_THREADS=1
    python pipelines/train_tiny.py --stage data --pictures work/pictures --out work/tiny
    torchrun --nproc_per_node 2 pipelines/train_tiny.py --stage vae --seconds 1500 --out work/tiny
    torchrun --nproc_per_node 2 pipelines/train_tiny.py --stage latents --out work/tiny
    torchrun --nproc_per_node 2 pipelines/train_tiny.py --stage unet --seconds 3900 --out work/tiny
    python pipelines/train_tiny.py --stage export --out work/tiny

Expect 24 dB from the autoencoder on the demo images (26 dB on the photographs), and an eps error
of 0.13 from the UNet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=["data", "vae", "latents", "unet", "export"])
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and crops")
    parser.add_argument("--pictures", type=Path, help="folder written by assemble_tiny_data.py")
    parser.add_argument("--seconds", type=float, help="wall-clock budget of vae or unet")
    parser.add_argument("--styles", type=int, default=180, help="procedural styles")
    parser.add_argument("--demo", type=Path, default=REPOSITORY / "manifests/demo")
    parser.add_argument("--model", type=Path, default=REPOSITORY / "stylebatch/models/tiny")
    arguments = parser.parse_args()
    out: Path = arguments.out

    import torch

    from stylebatch.training import data

    torch.set_num_threads(1)
    if arguments.stage == "data":
        out.mkdir(parents=True, exist_ok=True)
        data.build(arguments.pictures, arguments.styles, 24).save(out / "crops.npz")
    elif arguments.stage == "vae":
        from stylebatch.training.vae import VaeRun, train_vae

        _, demo = data.held_out(arguments.demo)
        run = VaeRun(seconds=arguments.seconds or VaeRun.seconds)
        train_vae(run, data.Crops.load(out / "crops.npz"), out, demo)
    elif arguments.stage == "latents":
        from stylebatch.training.latents import encode_all

        encode_all(data.Crops.load(out / "crops.npz"), out)
    elif arguments.stage == "unet":
        from stylebatch.training.unet import UnetRun, train_unet

        train_unet(UnetRun(seconds=arguments.seconds or UnetRun.seconds), out)
    elif arguments.stage == "export":
        from stylebatch.training.export import export

        print(export(out, arguments.model))


if __name__ == "__main__":
    main()
