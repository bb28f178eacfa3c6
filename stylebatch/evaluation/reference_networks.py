"""The networks that published measures are defined by, for weights from files: AlexNet, VGG-19, Inception v3.

Layers have the names that the published weights have. No weights come with this package, and none are downloaded.
"""

from __future__ import annotations

import pickle
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from stylebatch.errors import ManifestError


def _relu_stack(*layers: nn.Module | tuple[int, ...]) -> nn.Sequential:
    """Modules as they are; (inputs, outputs, kernel, stride, padding) is a convolution with its ReLU."""
    stack: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, tuple):
            inputs, outputs, kernel, stride, padding = layer
            stack += [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU()]
        else:
            stack.append(layer)
    return nn.Sequential(*stack)


class AlexNet(nn.Module):
    """The layers before the classifier: Krizhevsky 2014, arXiv 1404.5997."""

    ENDS = (1, 4, 7, 9, 11)

    def __init__(self) -> None:
        super().__init__()
        self.features = _relu_stack(
            (3, 64, 11, 4, 2), nn.MaxPool2d(3, 2), (64, 192, 5, 1, 2), nn.MaxPool2d(3, 2),
            (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps behind each ReLU, of (N, 3, h, w) from -1 to 1, shifted and scaled as LPIPS does."""
        shift = images.new_tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1)
        scale = images.new_tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1)
        values, found = (images - shift) / scale, []
        for place, layer in enumerate(self.features):
            values = layer(values)
            if place in self.ENDS:
                found.append(values)
        return found


class Vgg19(nn.Module):
    """The first layers, up to relu3_1: Simonyan and Zisserman 2015, arXiv 1409.1556."""

    def __init__(self) -> None:
        super().__init__()
        same = (3, 1, 1)
        self.features = _relu_stack(
            (3, 64, *same), (64, 64, *same), nn.MaxPool2d(2, 2),
            (64, 128, *same), (128, 128, *same), nn.MaxPool2d(2, 2), (128, 256, *same),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """(N, 256, h / 4, w / 4) of (N, 3, h, w) from 0 to 1."""
        mean = images.new_tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
        std = images.new_tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
        found: Tensor = self.features((images - mean) / std)
        return found


class _Conv(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Any, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, values: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(values)))


class _Block(nn.Module):
    """Layers by name. `pool`: of the pooled branch: `inside` averages over what lies in the map, `rim` counts zeros around it too,
    `max` takes the largest."""

    def __init__(self, pool: str, **layers: _Conv) -> None:
        super().__init__()
        self.pool = pool
        for name, layer in layers.items():
            self.add_module(name, layer)

    def through(self, values: Tensor, *names: str) -> Tensor:
        """The layers of these names, one behind the other."""
        for name in names:
            values = getattr(self, name)(values)
        return values

    def pooled(self, values: Tensor) -> Tensor:
        if self.pool == "max":
            return max_pool2d(values, 3, stride=1, padding=1)
        return avg_pool2d(values, 3, stride=1, padding=1, count_include_pad=self.pool == "rim")


class _A(_Block):
    def __init__(self, inputs: int, pooled: int, pool: str) -> None:
        super().__init__(
            pool,
            branch1x1=_Conv(inputs, 64, 1),
            branch5x5_1=_Conv(inputs, 48, 1),
            branch5x5_2=_Conv(48, 64, 5, padding=2),
            branch3x3dbl_1=_Conv(inputs, 64, 1),
            branch3x3dbl_2=_Conv(64, 96, 3, padding=1),
            branch3x3dbl_3=_Conv(96, 96, 3, padding=1),
            branch_pool=_Conv(inputs, pooled, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [
                self.through(x, "branch1x1"),
                self.through(x, "branch5x5_1", "branch5x5_2"),
                self.through(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
                self.through(self.pooled(x), "branch_pool"),
            ],
            1,
        )


class _B(_Block):
    def __init__(self, inputs: int) -> None:
        super().__init__(
            "",
            branch3x3=_Conv(inputs, 384, 3, stride=2),
            branch3x3dbl_1=_Conv(inputs, 64, 1),
            branch3x3dbl_2=_Conv(64, 96, 3, padding=1),
            branch3x3dbl_3=_Conv(96, 96, 3, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [
                self.through(x, "branch3x3"),
                self.through(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
                max_pool2d(x, 3, stride=2),
            ],
            1,
        )


class _C(_Block):
    def __init__(self, inputs: int, inner: int, pool: str) -> None:
        wide: dict[str, Any] = {"kernel": (1, 7), "padding": (0, 3)}
        tall: dict[str, Any] = {"kernel": (7, 1), "padding": (3, 0)}
        super().__init__(
            pool,
            branch1x1=_Conv(inputs, 192, 1),
            branch7x7_1=_Conv(inputs, inner, 1),
            branch7x7_2=_Conv(inner, inner, **wide),
            branch7x7_3=_Conv(inner, 192, **tall),
            branch7x7dbl_1=_Conv(inputs, inner, 1),
            branch7x7dbl_2=_Conv(inner, inner, **tall),
            branch7x7dbl_3=_Conv(inner, inner, **wide),
            branch7x7dbl_4=_Conv(inner, inner, **tall),
            branch7x7dbl_5=_Conv(inner, 192, **wide),
            branch_pool=_Conv(inputs, 192, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [
                self.through(x, "branch1x1"),
                self.through(x, *(f"branch7x7_{n}" for n in range(1, 4))),
                self.through(x, *(f"branch7x7dbl_{n}" for n in range(1, 6))),
                self.through(self.pooled(x), "branch_pool"),
            ],
            1,
        )


class _D(_Block):
    def __init__(self, inputs: int) -> None:
        super().__init__(
            "",
            branch3x3_1=_Conv(inputs, 192, 1),
            branch3x3_2=_Conv(192, 320, 3, stride=2),
            branch7x7x3_1=_Conv(inputs, 192, 1),
            branch7x7x3_2=_Conv(192, 192, (1, 7), padding=(0, 3)),
            branch7x7x3_3=_Conv(192, 192, (7, 1), padding=(3, 0)),
            branch7x7x3_4=_Conv(192, 192, 3, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [
                self.through(x, "branch3x3_1", "branch3x3_2"),
                self.through(x, *(f"branch7x7x3_{n}" for n in range(1, 5))),
                max_pool2d(x, 3, stride=2),
            ],
            1,
        )


class _E(_Block):
    def __init__(self, inputs: int, pool: str) -> None:
        wide: dict[str, Any] = {"kernel": (1, 3), "padding": (0, 1)}
        tall: dict[str, Any] = {"kernel": (3, 1), "padding": (1, 0)}
        super().__init__(
            pool,
            branch1x1=_Conv(inputs, 320, 1),
            branch3x3_1=_Conv(inputs, 384, 1),
            branch3x3_2a=_Conv(384, 384, **wide),
            branch3x3_2b=_Conv(384, 384, **tall),
            branch3x3dbl_1=_Conv(inputs, 448, 1),
            branch3x3dbl_2=_Conv(448, 384, 3, padding=1),
            branch3x3dbl_3a=_Conv(384, 384, **wide),
            branch3x3dbl_3b=_Conv(384, 384, **tall),
            branch_pool=_Conv(inputs, 192, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        one = self.through(x, "branch3x3_1")
        two = self.through(x, "branch3x3dbl_1", "branch3x3dbl_2")
        return torch.cat(
            [
                self.through(x, "branch1x1"),
                *(self.through(one, f"branch3x3_2{side}") for side in "ab"),
                *(self.through(two, f"branch3x3dbl_3{side}") for side in "ab"),
                self.through(self.pooled(x), "branch_pool"),
            ],
            1,
        )


class Inception(nn.Module):
    """Inception v3 without its classifier: Szegedy et al. 2016, arXiv 1512.00567.

    `of_fid`: with the pooling of the graph of 2015 that the FID is defined by (averages within the map; the largest in the last block).
    """

    def __init__(self, *, of_fid: bool) -> None:
        super().__init__()
        pool, last = ("inside", "max") if of_fid else ("rim", "rim")
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b = _A(192, 32, pool)
        self.Mixed_5c = _A(256, 64, pool)
        self.Mixed_5d = _A(288, 64, pool)
        self.Mixed_6a = _B(288)
        self.Mixed_6b = _C(768, 128, pool)
        self.Mixed_6c = _C(768, 160, pool)
        self.Mixed_6d = _C(768, 160, pool)
        self.Mixed_6e = _C(768, 192, pool)
        self.Mixed_7a = _D(768)
        self.Mixed_7b = _E(1280, pool)
        self.Mixed_7c = _E(2048, last)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 2048) of (N, 3, h, w), h and w 75 or more."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, stride=2)))
        x = max_pool2d(x, 3, stride=2)
        for name, layer in self.named_children():
            if name.startswith("Mixed"):
                x = layer(x)
        found: Tensor = x.mean((2, 3))
        return found


def load_weights(module: nn.Module, file: str, *, ignored: tuple[str, ...] = ()) -> nn.Module:
    """`module` with the tensors of a .safetensors, .pth or .pt file; those whose names begin with `ignored` are left out.

    A file that holds more than tensors is refused. Raises ManifestError, naming what is missing or of another shape.
    """
    tensors = read_tensors(file)
    wanted = module.state_dict()
    # counters of batches, which older files lack and nothing uses
    counters = tuple(name for name in wanted if name.endswith("num_batches_tracked"))
    given = {name: value for name, value in tensors.items() if not name.startswith(ignored)}
    missing = sorted(set(wanted) - set(given) - set(counters))
    strange = sorted(set(given) - set(wanted))
    other = sorted(n for n in set(given) & set(wanted) if given[n].shape != wanted[n].shape)
    if missing or strange or other:
        faults = {"lacks": missing, "has unknown": strange, "has of another shape": other}
        told = "; ".join(
            f"{words} {', '.join(names[:3])}" for words, names in faults.items() if names
        )
        raise ManifestError(
            f"{file}: found other weights than {type(module).__name__} has ({told}); accepted: the file that docs/evaluation.md names"
        )
    module.load_state_dict(given, strict=False)
    return module.eval().requires_grad_(False)


def lpips_layers(file: str, device: torch.device) -> list[Tensor]:
    """The weights of LPIPS for the channels of each layer of AlexNet, (c,) each. Raises ManifestError."""
    tensors, widths = read_tensors(file), (64, 192, 384, 256, 256)
    names = [f"lin{layer}.model.1.weight" for layer in range(len(widths))]
    for name, width in zip(names, widths, strict=True):
        if name not in tensors or tensors[name].numel() != width:
            raise ManifestError(
                f"{file}: found no {name} of {width} channels; accepted: weights of LPIPS for AlexNet"
            )
    return [tensors[name].reshape(-1).to(device) for name in names]


def read_tensors(file: str) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises ManifestError for a file that is none or holds anything else."""
    accepted = "a .safetensors file, or a .pth file of tensors alone"
    try:
        if file.endswith(".safetensors"):
            return load_file(file)
        # tensors alone: no code of a pickle runs
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (
        OSError,
        ValueError,
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise ManifestError(f"{file}: cannot be read ({reason}); accepted: {accepted}") from None
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in found.values()):
        raise ManifestError(
            f"{file}: found something else than named tensors; accepted: {accepted}"
        )
    return dict(found)
