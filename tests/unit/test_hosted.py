"""Features in the machine's memory come back as they were, from pinned slabs and in the order that streams promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from stylebatch.engine.ladder import is_device_fault, is_out_of_memory
from stylebatch.methods.styleid import hosted
from stylebatch.methods.styleid.features import SiteFeatures
from stylebatch.methods.styleid.hosted import HostedFeatures

TIMESTEPS = (1, 251, 501)
COPY, TO, EMPTY = Tensor.copy_, Tensor.to, torch.empty


class Stream:
    """Work of a GPU that is done when somebody waits for it."""

    def __init__(self, *_: object) -> None:
        self.queue: list[Callable[[], object]] = []

    def record_event(self) -> list[Callable[[], object]]:
        event, self.queue = self.queue, []
        # work that was queued before an event is done before it, whoever waits
        self.queue = [lambda: _run(event)]
        return event

    def wait_event(self, event: list[Callable[[], object]]) -> None:
        _run(event)

    def wait_stream(self, other: Stream) -> None:
        assert not other.queue, "the network's stream computes at once here"


def _run(work: list[Callable[[], object]]) -> None:
    while work:
        work.pop(0)()


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GPU whose copies are late; sizes of the pinned allocations."""
    present, sizes = Stream(), list[int]()
    entered: list[Stream] = [present]

    @contextmanager
    def stream(one: Stream) -> Iterator[None]:
        entered.append(one)
        yield
        entered.pop()

    def late_copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        assert non_blocking
        entered[-1].queue.append(lambda: COPY(target, source))
        return target

    def late_to(tensor: Tensor, device: torch.device, non_blocking: bool = False) -> Tensor:
        assert (device.type, non_blocking) == ("cuda", True)
        target = torch.full_like(tensor, 77)
        entered[-1].queue.append(lambda: COPY(target, tensor))
        return target

    def empty(size: int, *, dtype: torch.dtype, pin_memory: bool = False) -> Tensor:
        if pin_memory:
            sizes.append(size)
        return EMPTY(size, dtype=dtype)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: present)
    monkeypatch.setattr(torch, "empty", empty)
    for name, stand_in in {"copy_": late_copy, "to": late_to, "record_stream": _nothing}.items():
        monkeypatch.setattr(Tensor, name, stand_in)
    return sizes


def _nothing(*_: Any) -> None: ...


def made(t: int) -> SiteFeatures:
    """q as projections give it, heads within tokens, and int8 with scales."""
    draw = torch.Generator().manual_seed(t)
    q = torch.randn(2, 9, 3, 5, generator=draw).transpose(1, 2)
    x = torch.randint(-127, 128, (2, 9, 15), generator=draw, dtype=torch.int8)
    return {6: {"q": q}, 9: {"x": x, "x.scale": torch.rand(2, 15, generator=draw)}}


def require_equal(found: SiteFeatures, expected: SiteFeatures) -> None:
    assert found.keys() == expected.keys()
    for site, tensors in expected.items():
        for name, tensor in tensors.items():
            assert found[site][name].dtype == tensor.dtype
            assert found[site][name].stride() == tensor.stride()
            assert torch.equal(found[site][name], tensor)


@pytest.mark.parametrize("slab", [64, 4096, 1 << 20])
@pytest.mark.parametrize("asked", [(501, 251, 1), (501, 501, 251, 501, 1), (1, 501)])
def test_what_was_kept_comes_back_whole(
    pinned: list[int], monkeypatch: pytest.MonkeyPatch, slab: int, asked: tuple[int, ...]
) -> None:
    monkeypatch.setattr(hosted, "SLAB_BYTES", slab)
    features = HostedFeatures(torch.device("cuda", 0))
    for t in TIMESTEPS:
        features.keep(t, made(t))
    for t in asked:
        require_equal(features.at(t), made(t))
    # they share slabs, unless one is larger than a slab
    assert len(pinned) == {64: 9, 4096: 2, 1 << 20: 1}[slab]


@pytest.mark.usefixtures("pinned")
def test_the_next_timestep_is_on_its_way_while_one_is_used() -> None:
    features = HostedFeatures(torch.device("cuda", 0))
    for t in TIMESTEPS:
        features.keep(t, made(t))
    first = features.at(501)
    assert features._coming is not None
    assert features._coming[0] == 251
    require_equal(first, made(501))
    features.at(1)
    assert features._coming is None


@pytest.mark.usefixtures("pinned")
def test_a_machine_without_pinned_memory_is_no_fault_of_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = ["CUDA error: out of memory", "CUDA error: an illegal memory access was encountered"]

    def refuse(*_: object, pin_memory: bool = False, **__: object) -> Tensor:
        raise RuntimeError(said[0])

    features = HostedFeatures(torch.device("cuda", 0))
    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(MemoryError, match=r"engine\.host_gb: the machine gave no") as short:
        features.keep(1, made(1))
    assert is_out_of_memory(short.value)
    del said[0]
    with pytest.raises(RuntimeError, match="illegal") as fault:
        features.keep(1, made(1))
    assert is_device_fault(fault.value)


def test_on_a_cpu_nothing_is_copied() -> None:
    features, kept = HostedFeatures(torch.device("cpu")), made(1)
    features.keep(1, kept)
    assert features.at(1)[6]["q"] is kept[6]["q"]
