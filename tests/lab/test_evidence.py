"""The experiment on stylised training data: what the sets promise, what mixtures have in common, intervals, and a small run."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.evidence import experiment, image_sets, rendering
from pipelines.evidence.__main__ import main
from pipelines.evidence.classifier import trained
from pipelines.evidence.silhouettes import (
    CLASSES,
    Painter,
    examples_of_test,
    training_examples,
    unhinted,
)

SEEN = [(220, 30, 30), (30, 200, 30), (30, 30, 220), (220, 220, 20), (20, 210, 220), (210, 30, 210)]
"""Colours of the left halves of textures; those of the right halves are half as bright."""
STYLES = Path(__file__).parents[2] / "manifests"


def make_font(path: Path, glyphs: str) -> Path:
    """Every glyph is a polygon of its own, as a hollow outline where its number is odd."""
    draw = random.Random(0)
    names = {ord(glyph): f"g{number}" for number, glyph in enumerate(glyphs)}
    shapes = {".notdef": TTGlyphPen(None).glyph()}
    for number, name in enumerate(names.values()):
        corners = [
            (500 + int(draw.uniform(200, 480) * np.cos(a)), 400 + int(draw.uniform(200, 480) * np.sin(a)))
            for a in np.linspace(0, 2 * np.pi, 5 + number % 5, endpoint=False)
        ]  # fmt: skip
        pen = TTGlyphPen(None)
        rings = [corners]
        if number % 2:
            rings.append([((x + 500) // 2, (y + 400) // 2) for x, y in reversed(corners)])
        for ring in rings:
            pen.moveTo(ring[0])
            for corner in ring[1:]:
                pen.lineTo(corner)
            pen.closePath()
        shapes[name] = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(list(shapes))
    builder.setupCharacterMap(names)
    builder.setupGlyf(shapes)
    builder.setupHorizontalMetrics({name: (1000, 0) for name in shapes})
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupNameTable({"familyName": "Shapes", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_font(tmp_path_factory.mktemp("font") / "shapes.ttf", "".join(CLASSES.values()))


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("textures")
    for number, colour in enumerate(SEEN):
        picture = np.empty((200, 200, 3), dtype=np.uint8)
        picture[:, :100], picture[:, 100:] = colour, np.array(colour) // 2
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def painter(font: Path, textures: Path) -> Painter:
    return Painter(font, sorted(textures.iterdir()))


def shown_texture(pixels: np.ndarray) -> tuple[int, bool]:
    """(texture, whether it is of a left half), by the colour that most pixels have of those that textures have."""
    colours = np.array([*SEEN, *(np.array(SEEN) // 2)])
    near = np.abs(pixels.reshape(-1, 1, 3).astype(int) - colours).max(axis=2) <= 6
    found = int(near.sum(axis=0).argmax())
    assert near.sum(axis=0)[found] > 300
    return found % len(SEEN), found < len(SEEN)


def test_textures_tell_the_class_in_training_and_mislead_in_the_test(painter: Painter) -> None:
    for example in training_examples(24, 3):
        assert shown_texture(np.asarray(painter.draw(example))) == (example.shape, True)
    conflict = examples_of_test(60, 3, conflict=True)
    for example in conflict[::4]:
        texture = shown_texture(np.asarray(painter.draw(example)))
        assert texture == (example.texture, False)
        assert texture[0] != example.shape
    met = Counter((one.shape, one.texture) for one in conflict)
    assert set(met.values()) == {2}
    assert len(met) == len(CLASSES) * (len(CLASSES) - 1)


def test_conflict_and_agreement_show_the_same_shapes(painter: Painter) -> None:
    agree, conflict = (examples_of_test(12, 5, conflict=is_so) for is_so in (False, True))
    for one, other in zip(agree, conflict, strict=True):
        before, after = (np.asarray(painter.draw(example)) for example in (one, other))
        assert (before[0, 0] == after[0, 0]).all()
        same = (before == after).all(axis=2)
        corner = (before == before[0, 0]).all(axis=2)
        # outside of the silhouette nothing differs, within it everything does
        assert same[corner].mean() > 0.99  # edges are mixed, and rounded
        assert (~same).mean() > 0.02
        assert abs((~same).mean() - (~corner).mean()) < 0.05


def test_an_outline_becomes_a_filled_silhouette(painter: Painter) -> None:
    for glyph, mask in painter.masks.items():
        inked = np.asarray(mask) > 127
        middle = tuple(int(n.mean()) for n in np.nonzero(inked))
        assert inked[middle], glyph
        assert inked.mean() > 0.15


@settings(max_examples=20, deadline=None)
@given(share=st.integers(1, 30), seed=st.integers(0, 9), more=st.integers(1, 5))
def test_sets_are_balanced_and_nothing_of_training_is_in_the_test(
    share: int, seed: int, more: int
) -> None:
    num = share * len(CLASSES)
    training = training_examples(num, seed)
    tests = [
        *examples_of_test(num, seed, conflict=False),
        *examples_of_test(num, seed, conflict=True),
    ]
    assert set(Counter(one.shape for one in training).values()) == {share}
    assert not {one.seed for one in training} & {one.seed for one in tests}
    assert len({one.name for one in (*training, *tests)}) == 3 * num
    without = unhinted(training)
    assert [(one.shape, one.glyph, one.seed) for one in without] == [
        (one.shape, one.glyph, one.seed) for one in training
    ]
    met = Counter((one.shape, one.texture) for one in without)
    assert max(met.values()) - min(met.get((a, b), 0) for a in range(6) for b in range(6)) <= 1
    with pytest.raises(ValueError, match=rf"{num + more} images: .*multiple of 6"):
        training_examples(num + more, seed)


def test_fonts_and_textures_that_do_not_serve_are_refused(
    tmp_path: Path, font: Path, textures: Path
) -> None:
    with pytest.raises(ValueError, match="5 textures: the set has 6 classes"):
        Painter(font, sorted(textures.iterdir())[1:])
    poor = make_font(tmp_path / "poor.ttf", "".join(CLASSES.values())[:-1])
    with pytest.raises(ValueError, match=r"poor\.ttf: no glyph for 🌵 \(U\+1F335\)"):
        Painter(poor, sorted(textures.iterdir()))


def blobs(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).resize((90, 80), 0)


def test_copies_of_a_photograph_stay_on_one_side(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    for name, seeds in (("cat", range(12)), ("dog", range(20, 32))):
        (source / name).mkdir(parents=True)
        for seed in seeds:
            blobs(seed).save(source / name / f"{seed}.png")
            if seed % 3 == 0:
                blobs(seed).resize((45, 41)).save(source / name / f"{seed} copy.jpg", quality=60)
    blobs(0).save(source / "dog" / "a cat.png")
    (source / "dog" / "notes.txt").write_text("no picture")
    found = image_sets.photographs(tmp_path / "out" / "contents", source, 0.4, 1)
    sides = {"train": found.training, "test": found.tests["clean"]}
    stems = {
        side: {Path(one.path).stem.removesuffix(" copy").replace("a cat", "0") for one in rows}
        for side, rows in sides.items()
    }
    assert not stems["train"] & stems["test"]
    assert len(found.training) + len(found.tests["clean"]) == 12 * 2 + 4 + 4 + 1
    for label in range(2):
        test = sum(one.label == label for one in found.tests["clean"])
        assert 6 <= test <= 8
    again = image_sets.photographs(tmp_path / "out" / "contents", source, 0.4, 1)
    assert again == found
    assert found.pixels(found.training[:3], 32).shape == (3, 32, 32, 3)


def test_photographs_that_do_not_serve_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    (source / "cat").mkdir(parents=True)
    blobs(1).save(source / "cat" / "1.png")
    with pytest.raises(ValueError, match="1 folders of a class"):
        image_sets.photographs(tmp_path / "out", source, 0.4, 1)
    (source / "dog").mkdir()
    (source / "dog" / "torn.jpg").write_bytes(b"\xff\xd8\xff no more")
    with pytest.raises(ValueError, match=r"torn\.jpg: no image that can be read"):
        image_sets.photographs(tmp_path / "out", source, 0.4, 1)
    (source / "dog" / "torn.jpg").unlink()
    with pytest.raises(ValueError, match=r"class (cat|dog) has no image left"):
        image_sets.photographs(tmp_path / "out", source, 0.4, 1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8), st.randoms(use_true_random=False)
)
def test_near_copies_are_joined_through_chains(hashes: list[int], draw: random.Random) -> None:
    far = [a for n, a in enumerate(hashes) if all((a ^ b).bit_count() > 20 for b in hashes[:n])]
    chain = [(n, one ^ bits) for n, one in enumerate(far) for bits in (0, 0b11111, 0b1111100000)]
    draw.shuffle(chain)
    groups = image_sets.near_copies([one for _, one in chain])
    for (a, _), group in zip(chain, groups, strict=True):
        for (b, _), other in zip(chain, groups, strict=True):
            assert (a == b) == (group == other)


def test_styles_of_training_and_test_must_differ(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        blobs(ord(name)).save(tmp_path / name / "x.png")
    found = rendering.collect(tmp_path / "out", [tmp_path / "a"], [tmp_path / "b"])
    assert (found.training, found.unseen) == (("training/x.png",), ("unseen/x.png",))
    blobs(ord("a")).save(tmp_path / "b" / "renamed.png")
    with pytest.raises(ValueError, match=r"renamed\.png: a style of the training too"):
        rendering.collect(tmp_path / "out", [tmp_path / "a"], [tmp_path / "b"])


def test_inputs_that_do_not_serve_end_with_2_before_any_work(
    tmp_path: Path, font: Path, textures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, torn = tmp_path / "out", tmp_path / "torn"
    torn.mkdir()
    (torn / "no font.ttf").write_bytes(b"\0\1\0\0 torn")
    (torn / "list.yaml").write_text("- model: tiny\n")
    (torn / "open.yaml").write_text("model: {name: tiny\n")
    for number in range(6):
        (torn / "textures").mkdir(exist_ok=True)
        (torn / "textures" / f"{number}.png").write_bytes(b"\x89PNG torn")
    common = ["--output", str(out), "--styles", str(tmp_path), "--unseen", str(tmp_path)]
    glyphs = ["--font", str(font), "--textures", str(textures)]
    for arguments, message in (
        ([], "no images to train on"),
        (["--photographs", str(tmp_path / "nowhere")], "nowhere: not found"),
        (
            ["--font", str(torn / "no font.ttf"), *glyphs[2:]],
            "no font.ttf: no font that can be read",
        ),
        ([*glyphs[:2], "--textures", str(torn / "textures")], "0.png: no texture that can be read"),
        ([*glyphs, "--seeds", "1"], "--seeds 1: accepted are numbers from 2 on"),
        ([*glyphs, "--ratios", "0.5", "-1"], "--ratios -1: accepted are numbers from 0 to 1"),
        (
            [*glyphs, "--images", "12", "--tests", "6"],
            "no image. Next: name a folder of images for --styles",
        ),
        ([*glyphs, "--images", "13"], "13 images: the 6 classes need equally many"),
        ([*glyphs, "--manifest", str(torn / "list.yaml")], "list.yaml: not a manifest"),
        ([*glyphs, "--manifest", str(torn / "open.yaml")], "open.yaml: cannot be read"),
        ([*glyphs, "--manifest", str(torn / "none.yaml")], "none.yaml: cannot be read"),
    ):
        assert main([*common, *arguments]) == 2
        assert message in capsys.readouterr().err
        assert not (out / "cue" / "rendered").exists()


def test_a_small_experiment_goes_on_where_it_was_stopped(
    tmp_path: Path, font: Path, textures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        *("--output", str(tmp_path / "out"), "--font", str(font), "--textures", str(textures)),
        *("--styles", str(STYLES / "demo" / "styles"), "--unseen", str(STYLES / "heldout" / "styles")),
        *("--images", "12", "--tests", "12", "--styled-tests", "4", "--seeds", "2"),
        *("--ratios", "1", "--num-styles", "2", "--epochs", "2", "--width", "4", "--size", "32"),
        *("--manifest", str(tmp_path / "base.yaml"), "--set", "image.size=32"),
    ]  # fmt: skip
    # what the experiment writes itself has no effect here
    (tmp_path / "base.yaml").write_text(
        "model: tiny\nmethod: {name: styleid, steps: 2}\ncontents: {path: nowhere}\n"
    )
    done: list[int] = []

    def stopped(*args: object) -> object:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return trained(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(experiment, "trained", stopped)
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    results = tmp_path / "out" / "cue" / "results"
    kept = {path.name: path.stat().st_mtime_ns for path in results.iterdir()}
    assert len(kept) == 3
    records = tmp_path / "out" / "cue" / "rendered" / "metadata"
    shards = {path: path.stat().st_mtime_ns for path in records.glob("train-*")}
    assert shards
    monkeypatch.setattr(experiment, "trained", trained)
    assert main(arguments) == 0
    after = {path.name: path.stat().st_mtime_ns for path in results.iterdir()}
    assert {name: after[name] for name in kept} == kept
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    facts = [json.loads(path.read_text()) for path in results.iterdir()]
    # originals, stylised at 0.5 and 1, colours at 0.5 and 1, unhinted: each with both seeds
    assert len(facts) == 12
    assert {(one["images"], one["steps"]) for one in facts} == {(12, 2)}
    pairs = (tmp_path / "out" / "cue" / "pairs.csv").read_text().splitlines()[1:]
    for pair in pairs:
        content, style = pair.split(",")
        assert (content.split("/")[0], style.split("/")[0]) in {
            ("train", "training"), ("agree", "unseen"),
        }  # fmt: skip
    wanted = [
        *(tuple(pair.split(",")) for pair in pairs),
        ("train/bird/lost.png", "training/a.jpg"),
    ]
    with pytest.raises(
        rendering.RenderingError,
        match=f"1 of {len(wanted)} pairs are missing, first train/bird/lost",
    ):
        rendering.read(tmp_path / "out" / "cue" / "rendered", wanted, 32)
    with pytest.raises(rendering.RenderingError, match="2 of 2 pairs are missing"):
        rendering.read(tmp_path, wanted[:2], 32)
    text = (tmp_path / "out" / "evidence.md").read_text()
    assert text.count("\n| 0.5 stylised, 2 styles |") == 2
    assert (
        "12 training images of 6 classes, 2 steps, 2 seeds; test images: clean 12, conflict 12"
        in text
    )
    with Image.open(tmp_path / "out" / "evidence.png") as picture:
        assert picture.width > 600
    with Image.open(tmp_path / "out" / "cue" / "images.jpg") as picture:
        # training, stylised by 2 styles, colours, unhinted, six tests; a row for each class
        assert picture.size == (10 * 36, 18 + 6 * 36)
