"""Latents of all training crops, encoded once and memory-mapped.

`posteriors.npy` holds mean and log-variance, (rows * crops, 2 C, h, w) float16; crop j of row i is entry
i * crops + j. Crops are placed by a stream of (seed, row, crop), so the file is the same for any number of processes.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from torch import Tensor

from stylebatch.errors import ManifestError, SampleError
from stylebatch.training.captioned import Captioned, stack
from stylebatch.training.draws import Draw

ENCODE_BATCH = 16


@dataclass(frozen=True)
class Latents:
    """Posterior parameters on disk; rows that could not be decoded are in `missing`."""

    posteriors: np.memmap
    crops: int
    factor: int
    scaling_factor: float
    missing: frozenset[int]

    def usable(self, num_rows: int) -> list[int]:
        """Rows that were decoded; raises ManifestError when there are none."""
        rows = [row for row in range(num_rows) if row not in self.missing]
        if not rows:
            raise ManifestError(f"data.path: none of {num_rows} rows can be decoded as an image")
        return rows

    def batch(self, draw: Draw, *, sample: bool) -> tuple[Tensor, torch.Generator]:
        """Windows (B, C, h, w) of the rows of `draw`, scaled, and the stream to go on with."""
        generator = draw.generator()
        side = draw.window.size // self.factor
        limit = self.posteriors.shape[-1] - side
        count = len(draw.rows)
        crop = torch.randint(self.crops, (count,), generator=generator).tolist()
        corner = torch.randint(limit + 1, (count, 2), generator=generator).tolist()
        windows = [
            self.posteriors[row * self.crops + c, :, top : top + side, left : left + side]
            for row, c, (top, left) in zip(draw.rows, crop, corner, strict=True)
        ]
        moments = torch.from_numpy(np.stack(windows)).float()
        mean, log_variance = moments.chunk(2, dim=1)
        if sample:
            noise = torch.randn(mean.shape, generator=generator)
            mean = mean + torch.exp(0.5 * log_variance) * noise
        return mean * self.scaling_factor, generator


def prepare(
    images: Captioned,
    vae: AutoencoderKL,
    folder: Path,
    accelerator: Accelerator,
    *,
    key: str,
    seed: int,
) -> Latents:
    """Encode every crop unless `folder` already holds latents of this `key`; ranks share the work.

    Rows that cannot be decoded are left out and counted; they never stop a run.
    """
    target, record = folder / "posteriors.npy", folder / "latents.json"
    crops = images.data.crops
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    side = images.data.size // factor
    shape = (len(images) * crops, 2 * int(vae.config.latent_channels), side, side)
    if not (record.exists() and json.loads(record.read_text())["key"] == key):
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            record.unlink(missing_ok=True)
            np.lib.format.open_memmap(target, mode="w+", dtype=np.float16, shape=shape)
        accelerator.wait_for_everyone()
        missing = _encode(images, vae, target, accelerator, seed)
        (folder / f"missing-{accelerator.process_index}.json").write_text(json.dumps(missing))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            parts = sorted(folder.glob("missing-*.json"))
            gone = sorted({row for part in parts for row in json.loads(part.read_text())})
            for part in parts:
                part.unlink()
            partial = record.with_suffix(".partial")
            partial.write_text(json.dumps({"key": key, "missing": gone, "shape": shape}))
            os.replace(partial, record)
        accelerator.wait_for_everyone()
    known = json.loads(record.read_text())
    mapped = np.lib.format.open_memmap(target, mode="r")
    return Latents(
        mapped, crops, factor, float(vae.config.scaling_factor), frozenset(known["missing"])
    )


@torch.no_grad()
def _encode(
    images: Captioned, vae: AutoencoderKL, target: Path, accelerator: Accelerator, seed: int
) -> list[int]:
    out = np.lib.format.open_memmap(target, mode="r+")
    crops, missing = images.data.crops, []
    jobs: list[tuple[int, np.ndarray]] = []

    def flush() -> None:
        pixels = torch.from_numpy(stack([crop for _, crop in jobs])).to(vae.device, vae.dtype)
        moments = vae.encode(pixels).latent_dist.parameters.float().cpu().numpy()
        for (entry, _), value in zip(jobs, moments, strict=True):
            out[entry] = value
        jobs.clear()

    for row in range(accelerator.process_index, len(images), accelerator.num_processes):
        for index in range(crops):
            rng = np.random.default_rng([seed, 4, row, index])
            try:
                jobs.append((row * crops + index, images.crop(row, rng)))
            except SampleError:
                missing.append(row)
                break
            if len(jobs) == ENCODE_BATCH:
                flush()
    if jobs:
        flush()
    out.flush()
    return missing
