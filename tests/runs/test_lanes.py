"""Batches side by side: the same results, each with its own edit, and errors that wait for the others."""

from __future__ import annotations

import itertools
import json
import time
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path
from threading import get_ident
from types import SimpleNamespace
from typing import get_args

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from stylebatch.diffusion.attention import attend
from stylebatch.engine import measure as measuring
from stylebatch.engine.worker import Worker
from stylebatch.features.bandwidth import Bandwidth
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.block_pairs import Pairs
from stylebatch.methods.styleid.features import Kept, Recorder
from stylebatch.models.lanes import Lanes
from stylebatch.models.unet.edits import EditedProcessor
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.planning.resolve import plan
from tests.support.runs import digests, small_manifest


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_are_in_order_and_need_no_gradients(count: int) -> None:
    with closing(Lanes(count, 3)) as lanes:
        found = lanes.map(lambda i: (i, torch.is_inference_mode_enabled()), range(7))
    assert found == [(i, True) for i in range(7)]


def test_settings_of_the_caller_hold_in_the_lanes() -> None:
    setting = ContextVar("setting", default=0)
    setting.set(256)
    with closing(Lanes(2, 2)) as lanes:
        assert lanes.map(lambda _: setting.get(), range(4)) == [256] * 4


def test_cores_are_shared_and_the_callers_threads_stay() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with closing(Lanes(2, 4)) as lanes:
            found = lanes.map(lambda _: (torch.get_num_threads(), get_ident()), range(3))
        assert [threads for threads, _ in found] == [2, 2, 4]
        assert found[2][1] == get_ident()
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

    with closing(Lanes(2, 2)) as lanes, pytest.raises(RuntimeError, match="out of memory"):
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
    eps_model.on_evaluations = lambda _: used.add(get_ident())
    try:
        with closing(Lanes(3, 3)) as eps_model.lanes:
            beside = method.stylise(eps_model, contents, styles, batch=2)
    finally:
        eps_model.on_evaluations = eps_model.lanes = None
    assert len(used) == 3
    assert not any(isinstance(p, EditedProcessor) for p in eps_model.unet.attn_processors.values())
    torch.testing.assert_close(beside, method.stylise(eps_model, contents, styles, batch=2))


@pytest.mark.parametrize(("gigabytes", "lanes"), [(4.0, 2), (0.001, 1)])
def test_a_worker_renders_as_many_batches_at_once_as_threads_and_memory_allow(
    tmp_path: Path, gigabytes: float, lanes: int
) -> None:
    manifest = small_manifest(tmp_path / "one", contents=3, styles=2)
    document = json.loads(manifest.read_text())
    document["engine"] = {"batch": 3, "batch_gb": gigabytes}
    document["output"]["shard_size"] = 100
    manifest.write_text(json.dumps(document))
    resolved = plan(load_spec(manifest))
    used: set[int] = set()

    def render(threads: int) -> dict[str, str]:
        output = tmp_path / f"{threads}"
        with Worker(
            resolved,
            Folder.at(output),
            threads=threads,
            on_evaluations=lambda _: used.add(get_ident()),
        ) as worker:
            worker.render(0)
        return digests(output)

    assert resolved.batch == 3
    alone = render(1)
    assert used == {get_ident()}  # inversions are the caller's
    assert render(2).keys() == alone.keys()
    assert len(used - {get_ident()}) == (lanes if lanes > 1 else 0)


def test_what_is_measured_goes_in_the_lanes_of_a_run(
    tmp_path: Path, eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "measure_bandwidth", lambda _: Bandwidth(1.0, 1.0))
    ticks = itertools.count(0.0, 0.2)  # as long on every machine: a few batches
    monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    manifest = small_manifest(tmp_path, contents=2, styles=2)
    resolved = plan(load_spec(manifest, [f"features.cache={tmp_path / 'cache'}", "engine.batch=4"]))
    calls: list[tuple[int, int]] = []
    eps_model.on_evaluations = lambda rows: calls.append((get_ident(), rows))
    try:
        measuring.measure(resolved, threads=2, batch_gb=None, model=eps_model)
    finally:
        eps_model.on_evaluations = None
    beside = [rows for thread, rows in calls if thread != get_ident()]
    assert beside
    assert set(beside) == {2}
    assert eps_model.lanes is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40, unique=True),
    st.integers(1, 20),
    st.integers(1, 4),
)
def test_pairs_are_cut_so_that_every_lane_has_a_batch(
    drawn: list[tuple[int, int]], size: int, lanes: int
) -> None:
    styles, contents = zip(*sorted(drawn), strict=True)
    pairs = Pairs(contents, styles)
    cut = pairs.batches(size, lanes)
    assert [pair for one in cut for pair in zip(one.style, one.content, strict=True)] == sorted(
        drawn
    )
    assert all(1 <= len(one.content) <= size for one in cut)
    assert len(cut) % lanes == 0 or len(cut) == len(drawn)
    if lanes == 1:
        assert cut == pairs.batches(size)
    else:  # a small batch beside a large one would leave a lane idle
        assert max(len(one.content) for one in cut) <= -(-len(drawn) // len(cut))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 4))
def test_rows_are_cut_so_that_every_lane_has_a_part(rows: int, batch: int, count: int) -> None:
    with closing(Lanes(count, count)) as lanes:
        parts = lanes.num_parts(rows, batch)
        assert (
            lanes.map(lambda _: lanes.num_parts(rows, batch), range(count))
            == [1 if count > 1 else parts] * count
        )
    assert parts * batch >= rows
    assert parts % count == 0 or parts == rows


def test_rows_of_an_evaluation_run_side_by_side_unless_an_edit_relates_them(
    eps_model: StableDiffusion,
) -> None:
    draw = torch.Generator().manual_seed(0)
    x, cond = torch.randn(5, 4, 8, 8, generator=draw), eps_model.embed(list("abcde"))
    alone = eps_model.predict_noise(x, 201, cond)
    calls: list[tuple[int, int]] = []
    eps_model.on_evaluations = lambda rows: calls.append((get_ident(), rows))
    try:
        with closing(Lanes(2, 2)) as eps_model.lanes:
            beside = eps_model.predict_noise(x, 201, cond)
            one = eps_model.predict_noise(x, 201, eps_model.embed([""]))
            cut, calls[:] = list(calls), []
            recorder = Recorder("query", attend)
            with eps_model.editing(recorder, eps_model.sites):
                edited = eps_model.predict_noise(x, 201, cond)
            with eps_model.sharing_norms(lambda rows: torch.zeros(rows, dtype=torch.long)):
                eps_model.predict_noise(x, 201, cond)
    finally:
        eps_model.lanes = eps_model.on_evaluations = None
    assert sorted(rows for _, rows in cut) == [2, 2, 3, 3]
    assert get_ident() not in {thread for thread, _ in cut}
    assert calls == [(get_ident(), 5)] * 2
    torch.testing.assert_close(beside, alone)
    torch.testing.assert_close(edited, alone)
    assert one.shape == alone.shape
    assert {q["q"].shape[0] for q in recorder.take().values()} == {5}


@pytest.mark.parametrize("keep", get_args(Kept))
def test_parts_of_an_inversion_run_side_by_side(eps_model: StableDiffusion, keep: Kept) -> None:
    method = StyleID(steps=4, sites=(6, 9), inversion="bdia")
    latents = 0.8 * torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    alone = method.invert(eps_model, latents, "key_value", keep=keep)
    try:
        with closing(Lanes(2, 2)) as eps_model.lanes:
            beside = method.invert(eps_model, latents, "key_value", keep=keep, batch=4)
    finally:
        eps_model.lanes = None
    assert not any(isinstance(p, EditedProcessor) for p in eps_model.unet.attn_processors.values())
    for name in ("latent", "residual", "levels"):
        torch.testing.assert_close(
            getattr(beside, name), getattr(alone, name), rtol=1e-3, atol=1e-3
        )
    for step in method.trajectory(eps_model).reverse:
        torch.testing.assert_close(
            beside.features.at(step.t), alone.features.at(step.t), rtol=1e-3, atol=1e-3
        )
