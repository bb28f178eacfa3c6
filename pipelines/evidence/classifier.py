"""A small convolutional classifier: four layers, 62,000 weights, trained from nothing in seconds on one core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from stylebatch.data.images import Pixels


@dataclass(frozen=True)
class Training:
    """Every classifier of a comparison has the same; steps are epochs x batches of an epoch."""

    epochs: int = 40
    batch: int = 32
    width: int = 16
    rate: float = 3e-3
    shift: int = 4
    device: str = "cpu"

    def steps(self, num_images: int) -> int:
        return self.epochs * -(-num_images // self.batch)


def network(num_classes: int, width: int) -> nn.Sequential:
    """Takes (n, 3, size, size) of 0..1; size at least 32."""

    def layer(before: int, after: int, side: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(before, after, side, stride, side // 2, bias=False)
        return [convolution, nn.BatchNorm2d(after), nn.ReLU()]

    return nn.Sequential(
        *layer(3, width, 5, 2), nn.MaxPool2d(2),
        *layer(width, 2 * width, 3, 1), nn.MaxPool2d(2),
        *layer(2 * width, 4 * width, 3, 1), nn.MaxPool2d(2),
        *layer(4 * width, 4 * width, 3, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4 * width, num_classes),
    )  # fmt: skip


def trained(
    pixels: Pixels, labels: NDArray[np.int64], num_classes: int, training: Training, seed: int
) -> nn.Module:
    """A classifier of (n, size, size, 3) uint8. The seed draws weights, order, flips and shifts; nothing else is random."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network(num_classes, training.width).to(training.device).train()
        images, classes = _tensor(pixels, training.device), torch.as_tensor(labels)
        steps = training.steps(len(pixels))
        optimizer = torch.optim.AdamW(model.parameters(), training.rate, weight_decay=0.01)
        falling = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, training.rate, total_steps=max(steps, 2)
        )
        order = torch.empty(0, dtype=torch.long)
        for _ in range(steps):
            if not len(order):
                order = torch.randperm(len(pixels))
            rows, order = order[: training.batch], order[training.batch :]
            guesses = model(_varied(images[rows.to(images.device)], training.shift))
            loss = F.cross_entropy(guesses, classes[rows].to(guesses.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            falling.step()
    return model.eval()


def _tensor(pixels: Pixels, device: str) -> Tensor:
    return torch.as_tensor(pixels).permute(0, 3, 1, 2).to(device)


def _varied(images: Tensor, shift: int) -> Tensor:
    """Mirrored or not, each; moved by the same few pixels, all."""
    mirrored = (torch.rand(len(images)) < 0.5).to(images.device)[:, None, None, None]
    images = torch.where(mirrored, images.flip(3), images).float() / 255
    down, right = torch.randint(0, 2 * shift + 1, (2,)).tolist()
    height, width = images.shape[2:]
    padded = F.pad(images, (shift,) * 4, mode="replicate")
    return padded[:, :, down : down + height, right : right + width]


@torch.no_grad()
def predictions(
    model: nn.Module, tests: Mapping[str, Pixels], device: str
) -> dict[str, NDArray[np.int64]]:
    """The class that the model finds in every image of every test."""
    found = {}
    for name, pixels in tests.items():
        parts = _tensor(pixels, device).split(256)
        guesses = [model(part.float() / 255).argmax(1).cpu() for part in parts]
        found[name] = torch.cat(guesses).numpy()
    return found
