"""Tells what each of some places is for: contents, styles, prompts, pairs, annotations, masks or label images.

Names go first (`photos`, `style_images`), then what is there: a table by its columns, annotations by their files, and of two
folders of images the one with classes, objects or splits is contents. Where nothing tells, people are asked, or an error says what to give.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from shlex import quote
from typing import Literal

from stylebatch.data.image_section import ContentSpec
from stylebatch.data.pictures.formats import IMAGE_SUFFIXES
from stylebatch.data.places import entries_of, is_folder
from stylebatch.data.sources.holdings import ANNOTATION_SUFFIXES, kind_within
from stylebatch.data.sources.hub_datasets import is_on_hub, local_copy
from stylebatch.data.sources.kinds import accepted_kinds, kind_of
from stylebatch.data.sources.outputs import is_output
from stylebatch.data.tables.reader import FORMATS
from stylebatch.data.tables.text_lines import suffix_of
from stylebatch.errors import ManifestError
from stylebatch.survey.image_survey import FIELD, listed
from stylebatch.survey.place_words import (
    CONTENT_WORDS,
    GENERAL_WORDS,
    MASK_WORDS,
    SEGMENTATION_WORDS,
    STYLE_WORDS,
    slips_in,
    words_of,
)
from stylebatch.survey.presence import require_there
from stylebatch.survey.table_survey import columns_of, role_of
from stylebatch.words import counted

Part = Literal[
    "contents", "styles", "prompts", "pairs", "annotations", "masks", "segmentation", "images"
]
"""What a place is for; `images`: contents or styles."""
MANY_TIMES = 4
"""So many times the images of another folder, and a folder is contents, where that one has few."""
FEW = 64
NAMED = "Next: name them, `stylebatch init --contents FOLDER --styles FOLDER`"
AXES: tuple[Part, ...] = ("contents", "styles")
Ask = Callable[[str, Sequence[str]], str | None]
"""Asks a person to choose one of some texts, or to write one where there are none; None where nobody can be asked."""


@dataclass(frozen=True)
class Places:
    """Places by what they are for; `reasons`: for people, where that was told by looking."""

    by_part: Mapping[str, str]
    reasons: tuple[str, ...] = ()

    def get(self, part: Part) -> str | None:
        return self.by_part.get(part)

    def having(self, part: Part, place: str) -> Places:
        return replace(self, by_part={**self.by_part, part: place})


def assigned(given: Places, others: Sequence[str], ask: Ask) -> Places:
    """What each of `others` is for, beside those that were `given` with theirs; what a lone folder holds, where its parts are named.

    Raises ManifestError for a place that is not there, for two of one kind, and where contents and styles cannot be told apart.
    """
    for place in (*given.by_part.values(), *others):
        require_there(place)
    twice = [place for place, count in Counter(map(os.path.realpath, others)).items() if count > 1]
    if twice:
        raise ManifestError(f"{twice[0]}: is given twice; accepted: each place once. {NAMED}")
    if not others and not given.by_part:
        others = named_parts(os.curdir) or _all_parts(os.curdir)
        if not others:
            raise ManifestError(
                f"{os.path.abspath(os.curdir)}: found no folders or tables of images in it; accepted: folders to make a manifest of. Next: "
                "`stylebatch init PHOTOS PAINTINGS`"
            )
    elif len(others) == 1 and not given.by_part and _is_near(others[0]):
        others = named_parts(others[0]) or others
    found, images = given, list[str]()
    for place in others:
        part = part_of(place)
        if part == "images":
            images.append(place)
        else:
            found = _with(found, part, place)
    return _completed(_paired(found, images, ask), ask)


def _is_near(place: str) -> bool:
    """Whether it is a folder in which others may be looked for."""
    return not is_on_hub(place) and is_folder(place)


def _with(found: Places, part: Part, place: str) -> Places:
    other = found.get(part)
    if other is not None:
        raise ManifestError(
            f"{place}: found {part} beside {other}; accepted: one place for {part}. Next: leave one of the two out"
        )
    return found.having(part, place)


def part_of(place: str) -> Part:
    """What a place is for, by its name and by a glance at what is there; `images` for contents or styles."""
    place = local_copy(place, FIELD)
    if suffix_of(place) in FORMATS and kind_of(place) in (None, "table"):
        role = role_of(columns_of(place))
        # what is wrong with a table of other columns, its listing tells
        return role if role in ("pairs", "prompts") else "images"
    if suffix_of(place) == ".json" or _is_annotations(place):
        return "annotations"
    if kind_of(place) is None:
        raise ManifestError(
            f"{place}: is nothing that holds images, prompts or pairs; accepted: {accepted_kinds()}. Next: `stylebatch inspect "
            f"{quote(place)}`"
        )
    words = words_of(place)
    if words & MASK_WORDS and is_folder(place):
        return "masks"
    if words & SEGMENTATION_WORDS and is_folder(place):
        return "segmentation"
    return "images"


def _is_annotations(place: str) -> bool:
    """Whether a folder holds annotations and no pictures."""
    if kind_of(place) not in ("folder", "store"):
        return False
    has_pictures = kind_within(place, tuple(IMAGE_SUFFIXES))
    return not has_pictures and bool(kind_within(place, ANNOTATION_SUFFIXES))


def named_parts(folder: str) -> list[str]:
    """What lies in a folder and is named as contents and as styles, with masks and tables of prompts beside them; none without both."""
    found = _all_parts(folder)
    words = {place: words_of(place) for place in found}
    styles = [place for place in found if words[place] & STYLE_WORDS]
    contents = [
        place
        for place in found
        if words[place] & (CONTENT_WORDS | GENERAL_WORDS) and place not in styles
    ]
    others = [place for place in found if part_of(place) in ("masks", "segmentation")]
    if len(styles) == 1 and len(contents) == 1:
        return [*contents, *styles, *(place for place in others if place not in contents)]
    return []


def _all_parts(folder: str) -> list[str]:
    """Folders with images, and tables, in a folder; outputs and hidden ones are none."""
    beginning = "" if folder == os.curdir else f"{folder.rstrip('/')}/"
    found = []
    for name, is_dir in entries_of(folder).items():
        place = f"{beginning}{name}"
        if name.startswith("."):
            continue
        if _has_images(place) if is_dir and not is_output(place) else _is_known_table(place):
            found.append(place)
    return found


def _is_known_table(place: str) -> bool:
    return suffix_of(place) in FORMATS and role_of(columns_of(place)) != "other"


def _has_images(place: str) -> bool:
    kind = kind_of(place)
    if kind in ("folder", "store"):
        return bool(kind_within(place, tuple(IMAGE_SUFFIXES)))
    return kind is not None


def _paired(found: Places, images: Sequence[str], ask: Ask) -> Places:
    """With contents and styles among `images`."""
    lacking = [part for part in AXES if found.get(part) is None]
    if found.get("prompts") is not None:
        lacking = [part for part in lacking if part == "contents"]
    if len(images) > len(lacking):
        wanted = " and ".join(lacking) or "none beside those that are named"
        raise ManifestError(f"found images in {', '.join(images)}; accepted: {wanted}. {NAMED}")
    if not images:
        return found
    if len(images) == 1:
        is_style = len(lacking) == 2 and _is_named_style(images[0])
        part: Part = "styles" if is_style else lacking[0]
        return found.having(part, images[0])
    return _told_apart(found, (images[0], images[1]), ask)


def _is_named_style(place: str) -> bool:
    words = words_of(place)
    return bool(words & STYLE_WORDS) and not words & CONTENT_WORDS


def _is_named_content(place: str) -> bool:
    words = words_of(place)
    return bool(words & CONTENT_WORDS) and not words & STYLE_WORDS


def _told_apart(found: Places, images: tuple[str, str], ask: Ask) -> Places:
    """With both images in their parts. Raises ManifestError where nothing tells, and nobody can be asked."""
    told = _by(found, images, _is_named_style, "styles", "by its name") or _by(
        found, images, _is_named_content, "contents", "by its name"
    )
    if told is not None:
        return told
    looks = {place: _Glance.of(place) for place in images}

    def is_larger(place: str) -> bool:
        few, many = sorted(look.count for look in looks.values())
        return looks[place].count == many >= MANY_TIMES * few and few <= FEW

    tests: tuple[tuple[Callable[[str], bool], str], ...] = (
        (lambda place: looks[place].is_annotated, "since it has classes, objects or splits"),
        (lambda place: bool(words_of(place) & GENERAL_WORDS), "by its name"),
        (is_larger, "since it has many times the images of the other"),
    )
    for is_so, why in tests:
        if told := _by(found, images, is_so, "contents", why):
            return told
    described = "; ".join(f"{place}: {looks[place].text}" for place in images)
    answer = ask(f"{described}. Which of them lends its style?", images)
    if answer is None:
        raise ManifestError(
            f"{images[0]}, {images[1]}: which are contents and which styles cannot be told ({described}). {NAMED}"
        )
    return _split(found, images, answer, "styles", "as you said")


def _by(
    found: Places, images: tuple[str, str], is_so: Callable[[str], bool], part: Part, why: str
) -> Places | None:
    """Told apart where `is_so` of exactly one, which then is the `part`."""
    chosen = [place for place in images if is_so(place)]
    return _split(found, images, chosen[0], part, why) if len(chosen) == 1 else None


def _split(found: Places, images: tuple[str, str], chosen: str, part: Part, why: str) -> Places:
    (other,) = (place for place in images if place != chosen)
    rest: Part = "contents" if part == "styles" else "styles"
    slips = ", ".join(filter(None, map(slips_in, images)))
    reason = f"{chosen} is taken for {part}, {why}; {other} for {rest}" + f" ({slips})" * bool(
        slips
    )
    found = found.having(part, chosen).having(rest, other)
    return replace(found, reasons=(*found.reasons, reason))


@dataclass(frozen=True)
class _Glance:
    """What of a source tells contents from styles."""

    count: int
    is_annotated: bool
    text: str

    @classmethod
    def of(cls, place: str) -> _Glance:
        _, listing = listed(ContentSpec(path=place))
        items = listing.items
        classes = Counter(item.label for item in items if item.label)
        has_objects = any(item.regions for item in items)
        splits = Counter(item.split for item in items if item.split)
        is_annotated = len(classes) > 1 or has_objects or bool(splits)
        told = f", classes: {len(classes)}" if classes else ", no classes"
        return cls(len(items), is_annotated, counted(len(items), "image") + told)


def _completed(found: Places, ask: Ask) -> Places:
    """With what a run needs. Raises ManifestError where it lacks, or what has no use there."""
    if (prompts := found.get("prompts")) is not None:
        unused: tuple[Part, ...] = ("styles", "pairs")
        for part in unused:
            if place := found.get(part):
                raise ManifestError(
                    f"{place}: found {part} beside prompts ({prompts}); accepted: prompts, alone or with contents"
                )
    elif found.get("pairs") is None:
        for axis in AXES:
            if found.get(axis) is None:
                found = found.having(axis, _lacking(found, axis, ask))
    of_contents: tuple[Part, ...] = ("masks", "segmentation", "annotations")
    for part in of_contents:
        if (place := found.get(part)) is not None and found.get("contents") is None:
            raise ManifestError(
                f"{place}: found {part} without contents; accepted: with the images that they are of. Next: add `--contents FOLDER`"
            )
    contents, styles = found.get("contents"), found.get("styles")
    if contents is not None and contents == styles:
        raise ManifestError(
            f"{contents}: found it for contents and styles; accepted: two places. {NAMED}"
        )
    return found


def _lacking(found: Places, part: Part, ask: Ask) -> str:
    word = "lend their style" if part == "styles" else "keep their structure"
    answer = ask(f"Images that {word} ({part}): which folder?", ())
    if not answer:
        there = ", ".join(f"{place} for {name}" for name, place in found.by_part.items())
        also = ", or a table of prompts, `--prompts FILE`" if part == "styles" else ""
        raise ManifestError(
            f"{part}: found none ({there}); accepted: a folder or table of images that {word}{also}. Next: `stylebatch init PHOTOS "
            f"PAINTINGS`, or `--{part} FOLDER`"
        )
    require_there(answer)
    return answer
