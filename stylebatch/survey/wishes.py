"""What people ask of a manifest that `init` writes; the rest is proposed."""

from __future__ import annotations

import os
from dataclasses import dataclass

from stylebatch.data.sources.patterns import is_pattern, root_of
from stylebatch.paths import is_address


@dataclass(frozen=True)
class Wishes:
    """None for what is to be proposed. `manifest`: where it will stand; `split`: a fraction, `source` or `none`."""

    manifest: str
    name: str | None = None
    output: str | None = None
    model: str | None = None
    method: str | None = None
    size: int | None = None
    mode: str | None = None
    pairing: str | None = None
    per_content: int | None = None
    split: str | None = None

    def written(self, place: str) -> str:
        """A place as the manifest has it: from its folder, where that leads there; whole where it was given so and lies elsewhere."""
        if is_address(place):
            return place
        folder = os.path.dirname(self.manifest) or os.curdir
        whole = os.path.abspath(place)
        found = os.path.relpath(whole, os.path.abspath(folder))
        is_below = not found.startswith(os.pardir)
        if os.path.isabs(place) and not is_below:
            return whole
        # links on the way make `..` lead elsewhere, and `data:x` would be an address
        joined = os.path.join(folder, found)
        return found if not is_address(found) and _is_same(joined, whole) else whole


def _is_same(one: str, other: str) -> bool:
    if is_pattern(other):
        one, other = root_of(one), root_of(other)
    return os.path.realpath(one) == os.path.realpath(other)
