"""From places with their parts to a manifest: what fits the images, the table and the device, each with its reason.

1. The parts become the sections of inputs, and tell the method: contents x styles, listed pairs, or prompts.
2. Inputs are listed as a plan lists them, so that what is wrong with them is told now.
3. Sizes and pictures are looked at, and the rest follows: fitting, pairing, splits.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stylebatch.data.image_section import ContentSpec
from stylebatch.data.sources.source import NOWHERE, Item
from stylebatch.data.sources.splitting import EVERY
from stylebatch.doctor.machine import Device
from stylebatch.errors import ManifestError
from stylebatch.manifest import spec_of
from stylebatch.models.checkpoint import checkpoint_to_plan
from stylebatch.models.model_section import MODEL_IDS, SINGLE_FILE
from stylebatch.paths import is_address
from stylebatch.planning.axes import ImageAxis
from stylebatch.planning.picture_sizes import size_words
from stylebatch.planning.run_inputs import Inputs, list_inputs
from stylebatch.survey.content_options import content_options, has_splits
from stylebatch.survey.finding import fact_text
from stylebatch.survey.picture_look import PictureLook, look_at
from stylebatch.survey.place_words import plain_letters
from stylebatch.survey.roles import Places
from stylebatch.survey.table_survey import columns_of
from stylebatch.survey.wishes import Wishes
from stylebatch.words import counted

GPU_MODEL, SMALLEST_GPU = "sd15", 4_000_000_000
FEW_PAIRS, MOST_DRAWN = 256, 512
"""Every pair is rendered up to so many; beyond, each content is drawn so many styles that about this many pairs come out."""
WORTH_SPLITTING = 50
KEPT, MOSTLY = 0.8, 0.9
"""Share of a picture that its middle square must keep, in this share of the pictures, to be what is rendered."""
PICTURES = ("content", "style", "image")
"""Axes whose images are looked at."""
PLACES = ("path", "annotations", "masks", "segmentation")
"""Options of contents that are places."""
NAMED = 3
TOLERATED = 0.01
"""As `max_failed_fraction` by default."""


@dataclass
class Draft:
    """A manifest that is being made: raw `data`, what is told of each field, and what people should look at."""

    data: dict[str, Any]
    comments: dict[str, list[str]] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)

    def add(self, name: str, value: Any, *comments: str) -> None:
        self.data[name] = value
        self.comments.setdefault(name, []).extend(comments)


def drafted(places: Places, wishes: Wishes, devices: Sequence[Device]) -> Draft:
    """A manifest of the places. Raises ManifestError where no run could be made of them, with what is wrong."""
    draft = Draft({"name": wishes.name or _name(places)})
    is_split = _add_inputs(draft, places, wishes)
    _add_method(draft, places, wishes)
    _add_model(draft, wishes, devices)
    draft.add("output", {"path": _output(draft.data["name"], places, wishes)})
    if is_split:
        draft.add("split", "source", "The splits that the contents have already")
    inputs = list_inputs(spec_of(draft.data, wishes.manifest), checkpoint_to_plan)
    images = [axis for axis in inputs.axes if isinstance(axis, ImageAxis) and axis.name in PICTURES]
    looks = {axis.name: look_at(_pictured(axis), inputs.sources) for axis in images}
    _require_pictures(looks)
    _add_image(draft, wishes, inputs, looks)
    if places.get("prompts") is None and places.get("pairs") is None:
        _add_pairing(draft, wishes, inputs)
    if "split" not in draft.data:
        _add_split(draft, wishes, images)
    _add_tolerance(draft, looks)
    _describe(draft, inputs, looks)
    return Draft(_in_order(draft.data), draft.comments, draft.doubts)


def _pictured(axis: ImageAxis) -> list[Item]:
    return [item for item in axis.items if item.parts or item.ref != NOWHERE]


def _in_order(data: Mapping[str, Any]) -> dict[str, Any]:
    """As people read a manifest: what goes in, what is done, what comes out."""
    fields = (
        *("name", "contents", "styles", "prompts", "pairing", "split", "method", "model", "image"),
        *("max_failed_fraction", "output"),
    )
    return {name: data[name] for name in fields if name in data}


def _name(places: Places) -> str:
    """Of the inputs: `photos-paintings`."""
    parts = [places.get("contents"), places.get("styles"), places.get("prompts"), places.get("pairs")]  # fmt: skip
    stems = (os.path.basename(os.path.abspath(place)).partition(".")[0] for place in parts if place)
    words = (re.sub(r"[^A-Za-z0-9]+", "-", plain_letters(stem)).strip("-") for stem in stems)
    return "-".join(word for word in words if word)[:60] or "stylised"


def _output(name: str, places: Places, wishes: Wishes) -> str:
    """A folder that nothing is in: `outputs/NAME`; beside the inputs where these hold the working directory."""
    if wishes.output is not None:
        return wishes.output
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "stylised"
    folder = "outputs"
    around = [
        os.path.realpath(place)
        for place in places.by_part.values()
        if not is_address(place) and os.path.isdir(place)
    ]
    here = os.path.realpath(os.curdir)
    outer = [place for place in around if f"{here}/".startswith(f"{place}/")]
    if outer:
        folder = os.path.relpath(os.path.dirname(min(outer, key=len)) or os.sep)
        slug = f"{slug}-stylised"
    names = (slug, *(f"{slug}-{number}" for number in range(2, 1000)))
    return next(path for path in (f"{folder}/{name}" for name in names) if _is_free(path))


def _is_free(path: str) -> bool:
    return not os.path.lexists(path) or (os.path.isdir(path) and not os.listdir(path))


def _add_inputs(draft: Draft, places: Places, wishes: Wishes) -> bool:
    """The sections of inputs. Returns whether the splits of the contents shall be kept."""
    is_split = False
    if (contents := places.get("contents")) is not None:
        options, is_split = content_options(contents, places, wishes)
        draft.add(
            "contents",
            {
                name: wishes.written(value) if name in PLACES else value
                for name, value in options.items()
            },
        )
    if (styles := places.get("styles")) is not None:
        every = {"split": EVERY} if has_splits(ContentSpec(path=styles)) else {}
        draft.add("styles", {"path": wishes.written(styles), **every})
    if (prompts := places.get("prompts")) is not None:
        draft.add("prompts", {"path": wishes.written(prompts)})
    if (pairs := places.get("pairs")) is not None:
        given = {"mode": "explicit", "path": wishes.written(pairs)}
        draft.add("pairing", given, "The rows of the table, in whatever order")
    return is_split


def _add_method(draft: Draft, places: Places, wishes: Wishes) -> None:
    """The wanted one, or the one that takes what there is."""
    method, why = "styleid", "Each content in the style of an image"
    if (prompts := places.get("prompts")) is not None:
        columns = columns_of(prompts)
        if places.get("contents") is not None:
            has_masks = places.get("masks") is not None
            method, why = (
                ("inpaint", "The white of each mask is made anew by each prompt")
                if has_masks
                else ("img2img", "Each content is made anew by each prompt")
            )
        elif "image" in columns:
            method, why = (
                ("inpaint", "The white of each row's mask is made anew")
                if "mask" in columns
                else ("img2img", "Each row's image is made anew by its prompt")
            )
        elif columns & {"style", "reference"}:
            method, why = "stylealigned", "The prompts of a set share its style"
        else:
            method, why = "text2img", "A picture of each prompt"
    draft.add(
        "method", wishes.method or method, why if wishes.method in (None, method) else "As given"
    )


def _add_model(draft: Draft, wishes: Wishes, devices: Sequence[Device]) -> None:
    names = ("tiny", *MODEL_IDS)
    if (model := wishes.model) is not None:
        is_here = os.path.exists(model)
        if model in names:
            draft.add("model", model)
        elif is_here or model.lower().endswith(SINGLE_FILE) or model.count("/") != 1:
            draft.add("model", {"path": wishes.written(model)})
        else:
            draft.add("model", {"id": model})
        return
    gpu = next((d for d in devices if d.kind == "cuda" and d.total_bytes >= SMALLEST_GPU), None)
    if gpu is not None:
        draft.add(
            "model",
            GPU_MODEL,
            f"Stable Diffusion 1.5 for the {gpu.name}; a run fetches its weights from the hub. Without network: {{path: FOLDER}}, or tiny",
        )
        return
    other = (
        "an Apple GPU is slower than most"
        if any(d.kind == "mps" for d in devices)
        else "no GPU here"
    )
    draft.add(
        "model",
        "tiny",
        f"The embedded model, 128 px, needs no weights ({other}). On a GPU: sd15, sd21, sdxl, or {{path: FOLDER}} (docs/models.md)",
    )


def _require_pictures(looks: Mapping[str, PictureLook]) -> None:
    """Raise ManifestError where none of some pictures can be read."""
    for name, look in looks.items():
        if look.num_decoded and look.failing == 1:
            first, reason = look.faults[0]
            raise ManifestError(
                f"{name}s: none of the pictures that were looked at ({look.looked_at}) can be read, such as {first}: {reason}"
            )


def _add_image(
    draft: Draft, wishes: Wishes, inputs: Inputs, looks: Mapping[str, PictureLook]
) -> None:
    assert inputs.checkpoint is not None, "it was found when the inputs were listed"
    native = inputs.checkpoint.family.sizes.native
    size = wishes.size or native
    told = ["Pixels per side" + (", the model's own" if size == native else "")]
    image: dict[str, Any] = {"size": size}
    first = next((looks[name] for name in ("content", "image") if name in looks), None)
    if first is not None and first.sizes:
        smaller = sum(count for sides, count in first.sizes.items() if min(sides) < size)
        if 2 * smaller > first.sizes.total():
            told.append(f"Most pictures are smaller than {size} px and are enlarged")
        items = inputs.axes[0].items if isinstance(inputs.axes[0], ImageAxis) else ()
        has_objects = any(item.regions or item.segmentation for item in items)
        mode, why = _mode(first, has_objects=has_objects)
        image["mode"] = wishes.mode or mode
        told.append(why if wishes.mode in (None, mode) else "Fitted as given")
    elif wishes.mode is not None:
        image["mode"] = wishes.mode
    draft.add("image", image, *told)


def _mode(look: PictureLook, *, has_objects: bool) -> tuple[str, str]:
    """How pictures are fitted, and why."""
    square = sum(count for (w, h), count in look.sizes.items() if min(w, h) >= KEPT * max(w, h))
    if square >= MOSTLY * look.sizes.total():
        return (
            "center_crop",
            "center_crop: the middle square, since most pictures are nearly square",
        )
    objects = ", and no object is cut off" if has_objects else ""
    return (
        "fit",
        f"fit: every picture whole, in its own proportions, since many are not square{objects}. center_crop takes the middle square",
    )


def _add_pairing(draft: Draft, wishes: Wishes, inputs: Inputs) -> None:
    rows, columns = inputs.counts
    mode = wishes.pairing or ("sample" if wishes.per_content else None)
    if mode is None:
        mode = "product" if rows * columns <= FEW_PAIRS else "sample"
    if mode != "sample":
        several = f"Every content with every style: {rows:,} x {columns:,}"
        comment = several if mode == "product" else f"Pairing {mode}, as given"
        draft.add("pairing", {"mode": mode}, f"{comment}. Fewer: {{mode: sample, per_content: 1}}")
        return
    drawn = wishes.per_content or min(columns, max(1, MOST_DRAWN // rows))
    draft.add(
        "pairing",
        {"mode": "sample", "per_content": drawn},
        f"Each content with {counted(drawn, 'style')} of the {columns:,}, each style equally often; all {rows * columns:,} pairs: "
        "{mode: product}",
    )


def _add_split(draft: Draft, wishes: Wishes, images: Sequence[ImageAxis]) -> None:
    """As wanted, or some for validation where a classifier is likely to be trained: of images with classes, and enough of them."""
    if wishes.split == "none":
        return
    if wishes.split is not None:
        given: Any = (
            {"validation": _fraction(wishes.split)} if wishes.split != "source" else "source"
        )
        draft.add("split", given)
        return
    items = images[0].items if images and images[0].name != "style" else ()
    if len(items) >= WORTH_SPLITTING and len({item.label for item in items if item.label}) > 1:
        draft.add("split", {"validation": 0.1}, "No content is in both. Without: leave it out")


def _fraction(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1:
        raise ManifestError(
            f"--split: found {text!r}; accepted: a fraction for validation, such as 0.2, or `source`, or `none`"
        )
    return found


def _add_tolerance(draft: Draft, looks: Mapping[str, PictureLook]) -> None:
    """So many failed samples as the pictures that cannot be read will cost, and some more."""
    whole = math.prod(1 - look.failing for look in looks.values())
    failing = 1 - whole
    if failing * 2 < TOLERATED:
        return
    faults = [fault for look in looks.values() for fault in look.faults]
    named = ", ".join(name for name, _ in faults[:NAMED]) + ", ..." * (len(faults) > NAMED)
    what = f"{counted(len(faults), 'picture')} of those looked at cannot be read ({named})"
    draft.add(
        "max_failed_fraction",
        min(1.0, round(1.5 * failing + TOLERATED, 2)),
        f"{what}: samples of such fail and are counted, and a run with more than this share of them ends with exit code 3",
    )
    reasons = [f"{name}: {reason}" for name, reason in faults[:NAMED]]
    draft.doubts.append(
        "\n  ".join([f"{what}. Next: mend or remove them, or leave it at that", *reasons])
    )


def _describe(draft: Draft, inputs: Inputs, looks: Mapping[str, PictureLook]) -> None:
    """What the inputs are, above their sections."""
    fields = {"content": "contents", "style": "styles", "image": "contents"}
    for axis in inputs.axes:
        count = counted(len(axis), axis.name)
        told = [count]
        if isinstance(axis, ImageAxis) and axis.name in looks:
            told += _about(axis.items, looks[axis.name])
        # listed images have no section of their own
        names = (fields.get(axis.name, "prompts"), "prompts", "pairing")
        section = next(name for name in names if name in draft.data)
        draft.comments.setdefault(section, []).insert(0, ", ".join(told))


def _about(items: Sequence[Item], look: PictureLook) -> Iterator[str]:
    """`classes: 2 (cat 8, dog 4)`, `captions: 3`, sizes."""
    classes = Counter(item.label for item in items if item.label)
    if classes:
        yield f"classes: {fact_text(classes)}"
    objects = Counter(region.label for item in items for region in item.regions)
    if objects:
        yield f"objects: {fact_text(objects)}"
    if captions := sum(bool(item.caption) for item in items):
        yield f"captions: {captions:,}"
    if look.sizes:
        yield size_words(sorted(look.sizes, key=math.prod))
