"""The laboratory of the GPU benchmark: networks of published size, clocks and memory of the device, and the time budget."""

from __future__ import annotations

import gc
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipelines.proofs.families import BUILD, adapter
from pipelines.proofs.proof import peak, random_network, resident
from pipelines.proofs.published import PUBLISHED, narrowed
from stylebatch.doctor.machine import free_memory
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.family import Memory
from stylebatch.models.loading import load_model
from stylebatch.models.pipeline_files import TINY
from stylebatch.models.unet.parts import DTYPES
from stylebatch.models.unet.published import Published
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.models.unet.unet_loading import as_stable_diffusion

SHARE_OF_FREE = 0.8
"""The share of free memory that a measurement may plan to use."""


@dataclass(frozen=True)
class Subject:
    """A network to measure, at `size` pixels; `published` None: the embedded model. `folder`: its configs."""

    name: str
    size: int
    folder: Path
    published: Published | None

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.folder)

    def build(self, dtype: str, device: torch.device) -> StableDiffusion:
        """All parts on the device: random weights of the published size, made there, or the embedded model."""
        if self.published is None:
            model = as_stable_diffusion(load_model("tiny", device=device))
            for part in (model.unet, model.vae, model.text_encoder):
                # diffusers' own `to` warns of modules that it would keep in float32
                torch.nn.Module.to(part, DTYPES[dtype])
            return model
        parts = {
            part: random_network(
                BUILD[part],
                dict(self.published.configs[part]),
                dtype=DTYPES["float32" if part == "vae" and self._upcasts(dtype) else dtype],
                device=device,
            )
            for part in self.published.parameters
        }
        return adapter(self.published, parts)

    def _upcasts(self, dtype: str) -> bool:
        """Whether the product reads the autoencoder in float32: SDXL's."""
        is_xl = self.published is not None and "text_encoder_2" in self.published.configs
        return is_xl and dtype == "float16"

    def memory(self, dtype: str) -> Memory:
        """Bytes as planned."""
        return self.checkpoint.family.memory((self.size, self.size), DTYPES[dtype].itemsize)


def write_configs(published: Published, folder: Path) -> Path:
    """A pipeline folder without weights, which can be planned for; the embedded model's vocabulary stands for the hub's."""
    for part, config in published.configs.items():
        if part.startswith("tokenizer"):
            shutil.copytree(TINY / "tokenizer", folder / part)
            continue
        (folder / part).mkdir(parents=True)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (folder / part / name).write_text(json.dumps(dict(config)), encoding="utf-8")
    return folder


def subjects(folder: Path, is_quick: bool) -> tuple[Subject, ...]:
    """SD 1.5, 2.1 and SDXL at native size, configs below `folder`; quick: the embedded model, and a narrow, shallow SDXL."""
    if is_quick:
        full = PUBLISHED["sdxl"]
        parts = narrowed(full, 16)
        parts["unet"]["transformer_layers_per_block"] = [1, 2, 2]
        for part in ("text_encoder", "text_encoder_2"):
            parts[part]["num_hidden_layers"] = 2
        narrow = Published(full.title, 64, parts, full.parameters)
        configs = write_configs(narrow, folder / "sdxl")
        return Subject("tiny", 64, TINY, None), Subject("narrow sdxl", 64, configs, narrow)
    return tuple(
        Subject(name, PUBLISHED[name].native_size, write_configs(PUBLISHED[name], folder / name), PUBLISHED[name])
        for name in ("sd15", "sd21", "sdxl")
    )  # fmt: skip


@dataclass
class Budget:
    """Seconds of a part. What does not fit is left out and named in `skipped`."""

    seconds: float
    skipped: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self._started)

    def allows(self, seconds: float, what: str) -> bool:
        """Whether `seconds`, an estimate, are left; if not, `what` is added to `skipped`."""
        if (left := self.left) >= seconds:
            return True
        self.skipped.append(f"{what}: needs {seconds:.0f} s, {max(0.0, left):.0f} s are left")
        return False


@dataclass(frozen=True)
class Lab:
    """Where and what to measure. `is_quick`: seconds in all, for the tests; its figures mean nothing."""

    device: torch.device
    subjects: tuple[Subject, ...]
    is_quick: bool

    @property
    def dtypes(self) -> tuple[str, ...]:
        return ("float32",) if self.is_quick else ("bfloat16", "float16")

    @property
    def each(self) -> tuple[Subject, ...]:
        """Subjects of parts that need no comparison of families; quick: one."""
        return self.subjects[: self.of(len(self.subjects), 1)]

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def of(self, full: int, quick: int) -> int:
        """A count at this size."""
        return quick if self.is_quick else full

    @contextmanager
    def model(self, subject: Subject, dtype: str) -> Iterator[StableDiffusion]:
        """A model on the device for a `with` block. Names that keep it alive longer keep its memory too."""
        self.clean()
        try:
            yield subject.build(dtype, self.device)
        finally:
            self.clean()

    def clean(self) -> None:
        """Return unreferenced memory to the device."""
        gc.collect()  # modules refer to each other in cycles
        if self.is_cuda:
            torch.cuda.empty_cache()

    def fits(self, num_bytes: float, budget: Budget, what: str) -> bool:
        """Whether there is memory for a measurement that plans for `num_bytes`; if not, `what` is added to `skipped`."""
        self.clean()
        if num_bytes <= (free := SHARE_OF_FREE * free_memory(self.device)):
            return True
        budget.skipped.append(
            f"{what}: plans {num_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB may be used"
        )
        return False

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def mark(self) -> Any:
        """A moment on the device's own clock (a CUDA event in its stream), or on this machine's."""
        if not self.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, first: Any, last: Any) -> float:
        """Seconds between two marks; waits for the second."""
        if not self.is_cuda:
            return float(last - first)
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000.0

    def seconds(self, work: Callable[[], object], spend: float = 1.0) -> float:
        """Seconds of one call: the first warms up, the second decides how many to average within about `spend` seconds."""
        work()
        first = self.mark()
        work()
        once = self.between(first, self.mark())
        count = max(1, min(20, math.ceil(spend / max(once, 1e-6)))) if not self.is_quick else 1
        # one pair of marks around all calls: marks between them would make the host wait each time
        first = self.mark()
        for _ in range(count):
            work()
        return self.between(first, self.mark()) / count

    def peak_bytes(self, work: Callable[[], object]) -> int:
        """Peak bytes of `work` beyond those in use before it, of the device's allocator or of the resident set (Linux)."""
        work()  # first, since libraries keep workspaces from their first call on
        self.clean()
        if not self.is_cuda:
            before = resident()
            work()
            return max(1, peak() - before)
        self.wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        held = torch.cuda.memory_allocated(self.device)
        work()
        self.wait()
        return int(torch.cuda.max_memory_allocated(self.device)) - held


def device_facts(device: torch.device) -> Mapping[str, Any]:
    """Facts of the device on which the figures depend."""
    if device.type != "cuda":
        return {"device": device.type}
    found = torch.cuda.get_device_properties(device)
    return {
        "device": found.name,
        "capability": f"{found.major}.{found.minor}",
        "memory_gb": round(found.total_memory / 1e9, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
    }
