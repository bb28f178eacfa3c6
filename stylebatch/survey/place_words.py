"""What a place seems to be by its name: words of contents, styles, masks and label images."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata

STYLE_WORDS = frozenset(
    (
        *("style", "painting", "paint", "art", "artwork", "artist", "artistic", "texture", "look"),
        *("wikiart", "drawing", "sketch", "print", "pattern", "illustration", "canvas", "palette"),
        *("comic", "mosaic", "engraving", "watercolor", "watercolour"),
    )
)
CONTENT_WORDS = frozenset(
    (
        *("content", "photo", "photograph", "photography", "camera", "dcim", "imagenet", "coco"),
        *("voc", "cifar", "subject", "object", "class"),
    )
)
GENERAL_WORDS = frozenset(
    (
        *("image", "picture", "pic", "img", "data", "dataset", "train", "training", "source"),
        *("input", "original", "raw"),
    )
)
"""Of contents, where nothing else tells."""
MASK_WORDS = frozenset(("mask", "matte"))
SEGMENTATION_WORDS = frozenset(("segmentation", "seg", "semantic", "segmap"))
KNOWN = sorted(STYLE_WORDS | CONTENT_WORDS | GENERAL_WORDS | MASK_WORDS | SEGMENTATION_WORDS)
ALIKE, SWAPPED = 0.85, 0.75
"""Of a word and one of these that it misspells; where it has the same letters in another order."""
SHORTEST_SLIP = 5


def words_of(place: str) -> frozenset[str]:
    """The words of a place's own name, in the singular; a misspelt one of those that are known as it is meant."""
    return frozenset(map(_meant, _spelt(place)))


def slips_in(place: str) -> str:
    """`Styels is read as style`, for each misspelt word of a place's own name; "" where there are none."""
    pairs = ((word, _meant(word)) for word in _spelt(place))
    return ", ".join(
        f"{word} is read as {meant}" for word, meant in pairs if not word.startswith(meant)
    )


def plain_letters(text: str) -> str:
    """`text` with accents left out, so that Décor is Decor, however its file system composes letters."""
    parts = unicodedata.normalize("NFKD", text)
    return "".join(part for part in parts if not unicodedata.combining(part))


def _spelt(place: str) -> list[str]:
    name = os.path.basename(os.path.abspath(place)).partition(".")[0]
    spread = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+", plain_letters(spread).lower())


def _meant(word: str) -> str:
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in KNOWN:
            return form
    singular = word.removesuffix("s")
    if len(singular) < SHORTEST_SLIP:
        return singular
    close = difflib.get_close_matches(singular, KNOWN, n=1, cutoff=ALIKE)
    anagrams = [known for known in KNOWN if sorted(known) == sorted(singular)]
    close = close or difflib.get_close_matches(singular, anagrams, n=1, cutoff=SWAPPED)
    return close[0] if close else singular
