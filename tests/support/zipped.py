"""A kind of source that the product does not have: the images of a `.zip`. All it takes to add one."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterator

from stylebatch.data.pictures.formats import IMAGE_SUFFIXES
from stylebatch.data.sources.source import Item, Ref, Source


class ZippedImages(Source):
    """Members of an archive by name; the folder at the first level is the label."""

    accepted = "a .zip of images"

    @classmethod
    def recognises(cls, uri: str) -> bool:
        return uri.endswith(".zip") and os.path.isfile(uri)

    def items(self) -> Iterator[Item]:
        self._passed_over = Counter[str]()
        with zipfile.ZipFile(self.uri) as archive:
            for name in sorted(archive.namelist()):
                suffix = os.path.splitext(name)[1].lower()
                if suffix in IMAGE_SUFFIXES:
                    label = name.partition("/")[0] if "/" in name else ""
                    yield Item(name, Ref(os.path.abspath(self.uri), name, self.field), label)
                else:
                    self._passed_over[suffix or "without suffix"] += 1

    def passed_over(self) -> Counter[str]:
        return self._passed_over

    def read(self, ref: Ref) -> bytes:
        with zipfile.ZipFile(ref.uri) as archive:
            return archive.read(ref.member)
