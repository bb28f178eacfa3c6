"""Near-duplicates of an output: results that look like another, and contents of one split that look like one of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.compute as pc

from stylebatch.data.tables.table_columns import shown
from stylebatch.planning.shard_names import parsed_name
from stylebatch.quality.looks import NUM_HEX, alike
from stylebatch.reports.committed import ShardRows
from stylebatch.store.brief_stats import MOST_LOOKS


@dataclass(frozen=True)
class Duplicates:
    """`results`, `contents`: how many look like one before them, of `looked_at`; with an example of each."""

    results: int = 0
    contents: int = 0
    looked_at: int = 0
    is_part: bool = False
    results_example: str = ""
    contents_example: str = ""

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        part = "the first " if self.is_part else ""
        if self.results:
            yield (
                f"  alike       results that nearly repeat another: {self.results:,} of {part}{self.looked_at:,}, such as "
                f"{self.results_example}"
            )
        if self.contents:
            yield f"  alike       contents that are nearly in another split too: {self.contents:,}, such as {self.contents_example}"

    @property
    def sentence(self) -> str:
        """For a card, "" where nothing looks alike."""
        told = []
        if self.results:
            told.append(f"results that nearly repeat another: {self.results:,}")
        if self.contents:
            told.append(f"contents that are nearly in another split too: {self.contents:,}")
        return f"Near-duplicates: {'; '.join(told)}." if told else ""


class LooksOfShards:
    """Adds up what the markers of shards tell, in their order; of larger outputs than MOST_LOOKS samples the first ones."""

    def __init__(self) -> None:
        self._looks: list[str] = []
        self._keys: list[str] = []
        self._contents: dict[tuple[str, str], str] = {}
        self._is_part = False

    def add(self, shard: ShardRows) -> None:
        """A committed shard."""
        marked, parsed = shard.shard, parsed_name(shard.shard.name)
        if marked.place_of_success + marked.stats.num_success > MOST_LOOKS:
            self._is_part = True
        found = marked.stats.looks
        if found is None or parsed is None:
            return
        made = shard.table.filter(pc.equal(shard.table["status"], "success"))
        digits = found.samples
        looks = [digits[i : i + NUM_HEX] for i in range(0, len(digits), NUM_HEX)]
        # other numbers are those of a marker that somebody edited
        if len(looks) == len(made):
            self._looks += looks
            self._keys += made["key"].to_pylist()
        for content, look in found.contents.items():
            self._contents.setdefault((parsed.split, content), look)

    def duplicates(self) -> Duplicates:
        """What looks alike."""
        pairs = alike(self._looks)
        first = [self._keys[place] for place in pairs[0]] if len(pairs) else []
        named = list(self._contents)
        torn = [
            (named[one], named[other])
            for one, other in alike(list(self._contents.values())).tolist()
            if named[one][0] != named[other][0]
        ]
        example = ""
        if torn:
            (split, name), (other_split, other) = torn[0]
            example = f"{shown(name, 60)} of {split} and {shown(other, 60)} of {other_split}"
        return Duplicates(
            results=len(set(pairs[:, 1].tolist())),
            contents=len({other for _, other in torn}),
            looked_at=len(self._looks),
            is_part=self._is_part,
            results_example=" and ".join(first),
            contents_example=example,
        )
