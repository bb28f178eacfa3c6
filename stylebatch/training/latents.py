"""Latents of all training crops, encoded once and memory-mapped.

`posteriors.npy` holds mean and log-variance, (rows * crops, 2 C, h, w) float16; crop j of row i is entry
i * crops + j. Crops are placed by a stream of (seed, row, crop), so the file is the same for any number of processes.
`before.npy` holds the same crops of `data.before`, if that is set.
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
from stylebatch.models.unet.latent_space import latent_channels, latent_factor, latent_scale
from stylebatch.training.captioned import Captioned, stack
from stylebatch.training.draws import Draw

ENCODE_BATCH = 16


@dataclass(frozen=True)
class Latents:
    """Parameters of the posteriors on disk. `missing`: rows that could not be decoded."""

    posteriors: np.memmap
    before: np.memmap | None
    crops: int
    factor: int
    scale: float
    missing: frozenset[int]

    def usable(self, num_rows: int) -> list[int]:
        """Rows that were decoded. Raises ManifestError if there are none."""
        rows = [row for row in range(num_rows) if row not in self.missing]
        if not rows:
            raise ManifestError(f"data.path: none of {num_rows} rows can be decoded as an image")
        return rows

    def batch(self, draw: Draw, *, sample: bool) -> tuple[Tensor, Tensor | None, torch.Generator]:
        """Scaled windows (B, C, h, w) of the rows of `draw`, those of the first `pairs` before styling, and the batch's stream."""
        generator = draw.generator()
        side = draw.window.size // self.factor
        limit = self.posteriors.shape[-1] - side
        count = len(draw.rows)
        crop = torch.randint(self.crops, (count,), generator=generator).tolist()
        corner = torch.randint(limit + 1, (count, 2), generator=generator).tolist()

        def cut(source: np.memmap, count: int) -> Tensor:
            windows = [
                source[row * self.crops + c, :, top : top + side, left : left + side]
                for row, c, (top, left) in zip(
                    draw.rows[:count], crop[:count], corner[:count], strict=True
                )
            ]
            moments = torch.from_numpy(np.stack(windows)).float()
            mean, log_variance = moments.chunk(2, dim=1)
            if sample:
                noise = torch.randn(mean.shape, generator=generator)
                mean = mean + torch.exp(0.5 * log_variance) * noise
            return mean * self.scale

        latents = cut(self.posteriors, count)
        before = cut(self.before, draw.pairs) if self.before is not None and draw.pairs else None
        return latents, before, generator


def prepare(
    images: Captioned,
    vae: AutoencoderKL,
    folder: Path,
    accelerator: Accelerator,
    *,
    key: str,
    seed: int,
) -> Latents:
    """Latents of every crop, encoded unless `folder` has those of this `key`; ranks share the work.

    Rows that cannot be decoded are skipped and recorded; they never stop a run.
    """
    record = folder / "latents.json"
    targets = [folder / "posteriors.npy"]
    if images.before is not None:
        targets.append(folder / "before.npy")
    crops = images.data.crops
    factor = latent_factor(vae)
    side = images.data.size // factor
    shape = (len(images) * crops, 2 * latent_channels(vae), side, side)
    if not (record.exists() and json.loads(record.read_text())["key"] == key):
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            # first: without it a crash leaves files that nobody takes for complete
            record.unlink(missing_ok=True)
            for target in targets:
                np.lib.format.open_memmap(target, mode="w+", dtype=np.float16, shape=shape)
        accelerator.wait_for_everyone()
        missing = _encode(images, vae, targets, accelerator, seed)
        (folder / f"missing-{accelerator.process_index}.json").write_text(json.dumps(missing))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _complete(record, key, shape)
        accelerator.wait_for_everyone()
    recorded = json.loads(record.read_text())
    mapped = [np.lib.format.open_memmap(target, mode="r") for target in targets]
    return Latents(
        mapped[0],
        mapped[1] if len(mapped) > 1 else None,
        crops,
        factor,
        latent_scale(vae),
        frozenset(recorded["missing"]),
    )


def _complete(record: Path, key: str, shape: tuple[int, ...]) -> None:
    """Write the record, with the rows that ranks missed."""
    parts = sorted(record.parent.glob("missing-*.json"))
    gone = sorted({row for part in parts for row in json.loads(part.read_text())})
    for part in parts:
        part.unlink()
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps({"key": key, "missing": gone, "shape": shape}))
    os.replace(partial, record)


@torch.no_grad()
def _encode(
    images: Captioned, vae: AutoencoderKL, targets: list[Path], accelerator: Accelerator, seed: int
) -> list[int]:
    outs = [np.lib.format.open_memmap(target, mode="r+") for target in targets]
    crops, missing = images.data.crops, []
    jobs: list[tuple[int, np.memmap, np.ndarray]] = []

    def flush() -> None:
        # channels_last: faster convolutions on a CPU
        pixels = torch.from_numpy(stack([crop for *_, crop in jobs])).to(vae.device, vae.dtype)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        moments = vae.encode(pixels).latent_dist.parameters.float().cpu().numpy()
        for (entry, out, _), value in zip(jobs, moments, strict=True):
            out[entry] = value
        jobs.clear()

    for row in range(accelerator.process_index, len(images), accelerator.num_processes):
        for index in range(crops):
            try:
                # one stream for both: the crop before styling lies where the styled one does
                made = [
                    take(row, np.random.default_rng([seed, 4, row, index]))
                    for take in (images.crop, images.crop_before)[: len(outs)]
                ]
            except SampleError:
                missing.append(row)
                break
            jobs += [(row * crops + index, out, crop) for out, crop in zip(outs, made, strict=True)]
            if len(jobs) >= ENCODE_BATCH:
                flush()
    if jobs:
        flush()
    for out in outs:
        out.flush()
    return missing
