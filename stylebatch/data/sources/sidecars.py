"""What stands beside an image in files of its name: `cls` (label), `txt` (caption), `json` (both, licence and more).

Broken ones never cost the image: they are counted, and told.
"""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.captions import told
from stylebatch.data.sources.further import Kinds
from stylebatch.data.sources.image_columns import NAMED_BY_OPTIONS, TEXTS
from stylebatch.data.sources.objects import KEY, is_objects, regions_of
from stylebatch.data.sources.origins import ALWAYS
from stylebatch.data.sources.regions import Region
from stylebatch.data.sources.source import Source
from stylebatch.data.tables.table_columns import shown

MAX_BYTES = 1 << 20
NAMED = 12
_DECODER = json.JSONDecoder()
_JSON_SPACE = " \t\n\r"


class Described(NamedTuple):
    """What sidecars say of an image; "" for what they do not."""

    label: str = ""
    caption: str = ""
    license: str = ""
    regions: tuple[Region, ...] = ()


class Sidecars:
    """Reads sidecars, and counts those that cannot be read. `options` name the JSON keys."""

    READ: ClassVar[tuple[str, ...]] = ("json", "txt", "cls")

    def __init__(self, options: SourceOptions) -> None:
        self.options = options
        self._broken: Counter[str] = Counter()
        self._example: dict[str, str] = {}
        self._missed = {
            name: key for name in ("label", "caption") if (key := getattr(options, name))
        }
        self._key_of = {name: self._missed.get(name, name) for name in TEXTS}
        self._is_drawn = options.captions == "drawn"
        self._keys: dict[str, None] = {}
        self._texts: dict[str, str] = {}
        self.kinds = Kinds()

    def types(self, total: int | None = None) -> dict[str, str]:
        """Types of further keys over `total` images, or over those that were read; complete after the last one."""
        return further_of(self.kinds.types(total), self.options)

    def is_small(self, kind: str, size: int) -> bool:
        """Whether a sidecar may be read; one that is too large counts as broken."""
        if size > MAX_BYTES:
            self._broken[f".{kind} over {MAX_BYTES:,} bytes"] += 1
        return size <= MAX_BYTES

    def read(self, texts: Mapping[str, bytes], image: str) -> Described:
        """What the sidecars of one image say. `texts`: by extension."""
        found = self._json(texts["json"], image) if "json" in texts else {}
        self.kinds.add(self._learned(found))
        caption = self._plain(found, "caption", image) if found else ""
        # A key that was asked for goes before .txt, which goes before the usual key.
        if "txt" in texts and not (caption and self.options.caption):
            text = self._text("txt", texts["txt"], image)
            if self._is_drawn:
                text = told(text.splitlines(), self.options)
            caption = text or caption
        label = self._plain(found, "label", image) if found else ""
        if "cls" in texts and not self.options.label and (not label or label.isdecimal()):
            number = self._text("cls", texts["cls"], image)
            label = label or ("" if number == "-1" else number)
        license = self._plain(found, "license", image) if "license" in found else ""
        regions = self._regions(found[KEY], image) if KEY in found else ()
        return Described(self._shared(label), caption, self._shared(license), regions)

    def _learned(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        """What types are learned of; objects are no column."""
        if self.options.carry == ():
            return {name: found[name] for name in ALWAYS & found.keys()}
        return further_of(found, self.options) if KEY in found else found

    def _regions(self, found: Any, image: str) -> tuple[Region, ...]:
        try:
            return regions_of(found) if is_objects(found) else ()
        except ValueError:
            self._note(f"`{KEY}` of .json that cannot be read", image)
            return ()

    def _shared(self, text: str) -> str:
        """The same object for the same text, of which there are few."""
        text = text.strip()
        return self._texts.setdefault(text, text)

    def _plain(self, found: Mapping[str, Any], field: str, image: str) -> str:
        """The text or number of a field; of a list, its first text."""
        key = self._key_of[field]
        if key not in found:
            return ""
        if self._missed:
            self._missed.pop(field, None)
        value = found[key]
        if field == "caption" and self._is_drawn and _are_texts(value):
            return told(value, self.options)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str):
            # JSON can hold half a surrogate pair, which UTF-8 cannot.
            if not value.isascii() and not _is_unicode(value):
                self._note(f"`{key}` of .json that is no Unicode", image)
                return ""
            return value.replace("\0", "").strip()
        if isinstance(value, int | float) and not isinstance(value, bool):
            if isinstance(value, float) and not math.isfinite(value):
                return ""
            # 3.0 and 3 are one class.
            return str(int(value)) if value == int(value) else str(value)
        if value is not None and value != []:
            self._note(f"`{key}` of .json that is no text", image)
        return ""

    def _json(self, data: bytes, image: str) -> dict[str, Any]:
        found = parsed(data)
        if not isinstance(found, dict):
            self._note("broken .json", image)
            return {}
        if self._missed and len(self._keys) < NAMED * 4:
            self._keys |= dict.fromkeys(found)
        return found

    def _text(self, kind: str, data: bytes, image: str) -> str:
        try:
            # not by the codec `utf-8-sig`, which is slow
            return data.decode().removeprefix("\ufeff").replace("\0", "").strip()
        except UnicodeDecodeError:
            self._note(f".{kind} that is no UTF-8", image)
            return ""

    def _note(self, what: str, image: str) -> None:
        self._broken[what] += 1
        self._example.setdefault(what, image)

    def facts(self) -> dict[str, Any]:
        """What was counted, as JSON has it."""
        found = [name for name in NAMED_BY_OPTIONS if name not in self._missed]
        return {
            "broken": dict(self._broken),
            "example": self._example,
            "found": found,
            "keys": list(self._keys),
            "kinds": self.kinds.facts(),
        }

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add what others counted."""
        self._broken.update(facts["broken"])
        self._example = {**facts["example"], **self._example}
        for name in facts["found"]:
            self._missed.pop(name, None)
        self._keys |= dict.fromkeys(facts["keys"])
        self.kinds.join(facts["kinds"])

    def require_used(self, source: Source) -> None:
        """Raise ManifestError where the options name a key that no sidecar has."""
        for field, key in self._missed.items():
            close = difflib.get_close_matches(key, self._keys, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            known = ", ".join(shown(name) for name in list(self._keys)[:NAMED])
            raise source.fault(
                f"found no key {key!r} in any .json; {hint}accepted: a key that some have ({known or 'there is none'})",
                field,
            )

    def notes(self, field: str) -> list[str]:
        """What could not be read, with an example of each."""
        return [
            f"{field}: not read, the images are: {count} {what}"
            + (f" (such as beside {self._example[what]})" if what in self._example else "")
            for what, count in self._broken.most_common()
        ]


def _are_texts(value: Any) -> bool:
    """Whether a value is a list of texts that UTF-8 can hold."""
    try:
        return isinstance(value, list) and all(one.encode() is not None for one in value)
    except (AttributeError, UnicodeEncodeError):
        return False


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def further_of(found: Mapping[str, Any], options: SourceOptions) -> dict[str, Any]:
    """What JSON holds beside label, caption and licence."""
    named = [(getattr(options, n) if n in NAMED_BY_OPTIONS else None) or n for n in TEXTS]
    if is_objects(found.get(KEY)):
        named.append(KEY)
    return {name: value for name, value in found.items() if name not in named}


def parsed(data: bytes) -> Any:
    """The JSON value; None for what is none."""
    try:
        text = data.decode()
        found, end = _DECODER.raw_decode(text)
        if end == len(text) or not text[end:].strip(_JSON_SPACE):
            return found
    except (ValueError, RecursionError):
        pass
    try:
        # The slower way comes second: it knows byte order marks, UTF-16 and leading space.
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def level(path: str, number: int) -> str:
    """The name of the folder at a level above a file, 1 for the first; "" where it lies less deep, and for level 0."""
    # Members of a tar that was packed from "." begin so.
    folders = path.removeprefix("./").split("/")[:-1]
    return folders[number - 1] if 0 < number <= len(folders) else ""
