"""Previews that show one class or one style of many, samples that the run has not, or that cannot be made twice."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.manifest import load_spec
from stylebatch.planning.plan import Plan
from stylebatch.planning.preview import Shown, diagonals, preview_of_product, preview_of_rows
from stylebatch.planning.prompts import PromptRow
from stylebatch.planning.resolve import plan as resolve
from tests.support.images import write_manifest
from tests.support.planned import prompts_planned, samples_planned

labels = st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=1, max_size=40)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(labels, st.integers(1, 9), st.integers(1, 60))
def test_a_preview_of_a_product_shows_all_classes_contents_and_styles_it_has_room_for(
    labels: list[str], num_styles: int, limit: int
) -> None:
    pairs = preview_of_product(labels, [""] * num_styles, limit)
    assert pairs == sorted(set(pairs))
    assert len(pairs) == min(limit, len(labels) * num_styles)
    for shown, there in (
        ({labels[content] for content, _ in pairs}, len(set(labels))),
        ({content for content, _ in pairs}, len(labels)),
        ({style for _, style in pairs}, num_styles),
    ):
        assert len(shown) == min(limit, there)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(labels, st.data(), st.integers(1, 60))
def test_a_preview_of_a_list_shows_all_classes_and_several_of_what_varies(
    labels: list[str], data: st.DataObject, limit: int
) -> None:
    rows = [Shown(label, (data.draw(st.integers(0, 4)),)) for label in labels]
    chosen = preview_of_rows(rows, limit)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(limit, len(rows))
    assert len({rows[i].label for i in chosen}) == min(limit, len(set(labels)))
    if len(set(labels)) == 1 and limit > 1 and len({row.facets for row in rows}) > 1:
        assert len({rows[i].facets for i in chosen}) > 1


@pytest.mark.parametrize("num_styles", [2, 3, 4, 6, 8, 12])
@pytest.mark.parametrize("order", ["by content", "by style"])
def test_a_list_that_repeats_itself_at_even_distances_shows_many_contents_and_styles(
    num_styles: int, order: str
) -> None:
    pairs = list(itertools.product(range(24), range(num_styles)))
    if order == "by style":
        pairs.sort(key=lambda pair: pair[::-1])
    shown = [pairs[i] for i in preview_of_rows([Shown("", p[::-1]) for p in pairs], 8)]
    assert len({content for content, _ in shown}) >= 4
    assert len({style for _, style in shown}) >= min(num_styles, 6)
    silent = [pairs[i] for i in preview_of_rows([Shown("")] * len(pairs), 8)]
    assert min(len(set(kind)) for kind in zip(*silent, strict=True)) > 1


@pytest.mark.parametrize(("contents", "styles"), [(6, 6), (4, 6), (5, 7), (1, 3), (12, 8)])
def test_diagonals_walk_the_whole_product_without_repeats(contents: int, styles: int) -> None:
    walk = diagonals(contents, styles, contents * styles)
    assert sorted(walk) == [(c, s) for c in range(contents) for s in range(styles)]
    first = walk[: min(contents, styles)]
    assert len({c for c, _ in first}) == len({s for _, s in first}) == len(first)


PAIRINGS: dict[str, dict[str, Any]] = {
    "product": {"mode": "product"},
    "zip": {"mode": "zip"},
    "blocks": {"mode": "sample", "per_content": 2},
    "independent": {"mode": "sample", "per_content": 3, "pool": "independent"},
    "listed": {"mode": "explicit", "path": "pairs.csv"},
}


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_preview_shows_samples_of_the_run(tmp_path: Path, eps_folder: Path, pairing: str) -> None:
    for side, names in (("contents", "abc"), ("styles", "x")):
        for name, i in itertools.product(names, range(24 // len(names))):
            path = tmp_path / side / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["content", "style"])
        rows.writerows(
            (f"{'abc'[i % 3]}/{i % 8}.png", f"x/{i * 5 % 24}.png") for i in range(24, 0, -1)
        )
    spec = load_spec(write_manifest(tmp_path, eps_folder, pairing=PAIRINGS[pairing]))
    whole, shown = (_samples(resolve(spec, limit=limit)) for limit in (None, 8))
    assert shown <= whole
    assert len(shown) == 8
    assert {label for *_, label in shown} == {"a", "b", "c"}
    assert min(len({row[side] for row in shown}) for side in (0, 1)) > 4


def _samples(resolved: Plan) -> set[tuple[str, str, str]]:
    return {
        (resolved.images(0)[one.row].id, resolved.images(1)[one.column].id, one.label)
        for one in samples_planned(resolved)
    }


LOOKS = ["dark", "bright", "old", "new"]


def test_a_preview_of_prompts_over_contents_shows_classes_images_and_prompts(
    tmp_path: Path, eps_folder: Path
) -> None:
    for i in range(24):
        path = tmp_path / "contents" / "abc"[i // 8] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    source = {"template": "{look} {label}", "values": {"look": LOOKS}}
    path = write_manifest(tmp_path, eps_folder, prompts=source, method="img2img", styles=None)
    spec = load_spec(path)
    whole, shown = (prompts_planned(resolve(spec, limit=limit)) for limit in (None, 8))
    assert set(shown) <= set(whole)
    assert {row.label for row in shown} == {"a", "b", "c"}
    assert {row.prompt.split()[0] for row in shown} == set(LOOKS)
    assert len({row.image for row in shown}) > 4


@pytest.mark.parametrize("sets", [1, 4])
def test_a_preview_of_sets_shows_them_with_the_rows_they_take_their_style_from(
    tmp_path: Path, eps_folder: Path, sets: int
) -> None:
    values = {"look": LOOKS[:sets], "animal": ["cat", "dog", "hen", "cow", "pig", "fly"]}
    source = {"template": "{look} {animal}", "values": values, "label": "animal", "style": "look"}
    path = write_manifest(
        tmp_path, eps_folder, prompts=source, method="stylealigned", styles=None, contents=None
    )
    spec = load_spec(path)
    whole = resolve(spec)
    for limit in (1, 3, 4, 6, 8, 12, 99):
        shown = resolve(spec, limit=limit)
        prompts, references = prompts_planned(shown), _references(shown)
        assert len(prompts) == min(limit, len(prompts_planned(whole)))
        assert len({row.style for row in prompts}) == len(references) == min(limit, sets)
        assert references <= _references(whole)
        assert len({row.label for row in prompts}) >= min(limit - sets + 1, 6)


def _references(resolved: Plan) -> set[PromptRow]:
    """Prompts whose style their set takes."""
    samples = samples_planned(resolved)
    return {s.prompt for s in samples if s.prompt is not None and resolved.is_reference(s.row)}
