"""Batches side by side: the same results, each with its own edit, and errors that wait for the others."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from stylebatch.methods.lanes import Lanes
from stylebatch.methods.styleid import StyleID
from stylebatch.models.edits import EditedProcessor
from stylebatch.models.stable_diffusion import StableDiffusion


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_are_in_order_and_need_no_gradients(count: int) -> None:
    with Lanes(count, 3) as lanes:
        found = lanes.map(lambda i: (i, torch.is_inference_mode_enabled()), range(7))
    assert found == [(i, True) for i in range(7)]


def test_cores_are_shared_and_the_callers_threads_stay() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with Lanes(2, 4) as lanes:
            found = lanes.map(lambda _: (torch.get_num_threads(), threading.get_ident()), range(3))
        assert [threads for threads, _ in found] == [2, 2, 4]
        assert found[2][1] == threading.get_ident()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_an_error_waits_for_the_others() -> None:
    ended: list[int] = []

    def work(i: int) -> None:
        if i == 0:
            raise RuntimeError("out of memory")
        time.sleep(0.1)
        ended.append(i)

    with Lanes(2, 2) as lanes, pytest.raises(RuntimeError, match="out of memory"):
        lanes.map(work, range(4))
    assert sorted(ended) == [1, 2, 3]


@pytest.mark.parametrize("sites", [(6, 9, 11), (8,)], ids=str)
def test_batches_side_by_side_render_as_one_after_the_other(
    eps_model: StableDiffusion, sites: tuple[int, ...]
) -> None:
    method = StyleID(steps=4, sites=sites)
    draw = torch.Generator().manual_seed(0)
    contents, styles = (
        method.invert(eps_model, 0.8 * torch.randn(3, 4, 8, 8, generator=draw), kind)
        for kind in ("query", "key_value")
    )
    used: set[int] = set()
    eps_model.on_evaluations = lambda _: used.add(threading.get_ident())
    try:
        with Lanes(3, 3) as lanes:
            beside = method.stylise(eps_model, contents, styles, batch=2, lanes=lanes)
    finally:
        eps_model.on_evaluations = None
    assert len(used) == 3
    assert not any(isinstance(p, EditedProcessor) for p in eps_model.unet.attn_processors.values())
    torch.testing.assert_close(beside, method.stylise(eps_model, contents, styles, batch=2))
