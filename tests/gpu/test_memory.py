"""A device that is out of memory: the ladder goes down, says so, and a repair gives the same bytes."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from stylebatch.engine.ladder import is_device_fault, is_out_of_memory
from stylebatch.engine.worker import Worker
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.loading import load_checkpoint
from stylebatch.models.pipeline_files import TINY
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan as resolve
from tests.support.runs import digests, small_manifest
from tests.support.small_device import Device

Refuse = Callable[[int], None]


@pytest.fixture(scope="module")
def embedded(device: torch.device) -> StableDiffusion:
    return load_checkpoint(Checkpoint(TINY), dtype="float32", device=device)


@pytest.fixture
def resolved(device: torch.device, tmp_path: Path) -> Plan:
    """All pairs in one batch; on a GPU 16 of a size at which they need far more than one (1.0 GB against 0.1)."""
    side, size = (4, 256) if device.type == "cuda" else (2, 32)
    manifest = small_manifest(tmp_path / "in", contents=side, styles=side, size=size)
    document = json.loads(manifest.read_text())
    document["engine"] = {"threads": 1, "batch": side * side}
    document["output"]["shard_size"] = 100
    manifest.write_text(json.dumps(document))
    return resolve(load_spec(manifest))


def render(
    plan: Plan, model: StableDiffusion, output: Path, refuse: Refuse | None = None, executed: Any = None
) -> dict[str, Any]:  # fmt: skip
    with Worker(plan, Folder.at(output), threads=1, model=model, on_evaluations=refuse) as worker:
        return worker.render(0, executed)


def clean() -> None:
    gc.collect()
    torch.cuda.empty_cache()


@contextmanager
def limited(device: torch.device, num_bytes: int) -> Iterator[None]:
    """The process may take `num_bytes` of the device's memory for a `with` block."""
    total = torch.cuda.get_device_properties(device).total_memory
    clean()
    torch.cuda.set_per_process_memory_fraction(num_bytes / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        clean()


def reserved(device: torch.device, work: Callable[[], object]) -> int:
    """Bytes of the device that torch took at the peak of `work`."""
    clean()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return int(torch.cuda.max_memory_reserved(device))


@contextmanager
def scarce(plan: Plan, model: StableDiffusion, folder: Path) -> Iterator[Refuse | None]:
    """Memory for some rows and not for a whole batch: on a GPU torch is given less, on a CPU evaluations are refused."""
    if model.device.type == "cpu":
        yield Device(2)
        return
    one = reserved(model.device, lambda: render(plan, model, folder / "one", None, [[1, 0, 0]]))
    all_at_once = reserved(model.device, lambda: render(plan, model, folder / "all"))
    assert all_at_once > 1.3 * one, "a batch must need more than a row, or nothing is tested"
    with limited(model.device, (one + all_at_once) // 2):
        yield None


def test_real_lack_of_memory_makes_batches_smaller_and_is_repeatable(
    embedded: StableDiffusion, resolved: Plan, tmp_path: Path
) -> None:
    with scarce(resolved, embedded, tmp_path) as refuse:
        stats = render(resolved, embedded, tmp_path / "a", refuse)
    assert stats["num_success"] == resolved.grid.num_samples
    ((batch, contents, styles),) = stats["executed"]
    assert 1 <= batch < resolved.batch
    assert (contents, styles) == (0, 0)
    again = render(resolved, embedded, tmp_path / "b", None, stats["executed"])
    assert again["executed"] == stats["executed"]
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert render(resolved, embedded, tmp_path / "c")["executed"] == []


@pytest.mark.gpu
def test_samples_that_never_fit_are_failed_rows_and_the_worker_goes_on(
    cuda: torch.device, tmp_path: Path
) -> None:
    model = load_checkpoint(Checkpoint(TINY), dtype="float32", device=cuda)
    plan = resolve(load_spec(small_manifest(tmp_path / "in", contents=1, styles=1, size=256)))
    render(plan, model, tmp_path / "first")  # what libraries keep is there
    clean()
    with limited(cuda, torch.cuda.memory_reserved(cuda)):
        stats = render(plan, model, tmp_path / "a")
    assert (stats["num_failed"], stats["executed"]) == (1, [[1, 1, 1]])
    (row,) = pq.read_table(tmp_path / "a" / "metadata" / "train-00000.parquet").to_pylist()
    assert row["error_code"] == "oom"
    assert render(plan, model, tmp_path / "b")["num_success"] == 1


@pytest.mark.gpu
def test_the_devices_own_error_is_taken_for_lack_of_memory(cuda: torch.device) -> None:
    with pytest.raises(torch.OutOfMemoryError) as refused:
        torch.empty(2**50, dtype=torch.uint8, device=cuda)
    assert is_out_of_memory(refused.value)
    assert not is_device_fault(refused.value)
