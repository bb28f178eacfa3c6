"""The files that a plan decodes, and the rows that it is made of, by the names under which their bytes are remembered."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from stylebatch.data.inputs import files_of
from stylebatch.data.reading import hash_of, read_picture
from stylebatch.data.rows import facts_of
from stylebatch.data.sources.source import Ref
from stylebatch.engine.carried_values import CarriedValues
from stylebatch.errors import SampleError
from stylebatch.folder import Folder
from stylebatch.planning.axes import PromptAxis
from stylebatch.planning.plan import Plan
from stylebatch.store.fingerprints import changed, spread

CHECKED_FILES = 256
CHECKED_BYTES = 1 << 26
"""What a start compares at most, so that a resume with nothing left to decode notices too; workers compare the rest."""


def input_files(plan: Plan) -> Iterator[tuple[str, Ref]]:
    """Name and place of each file."""
    for axis in range(len(plan.axes)):
        kind, items = plan.inputs_of(axis)
        for item in items:
            yield from ((f"{kind} {name}", ref) for name, ref in files_of(item))


def require_unchanged(plan: Plan, output: Folder, known: Mapping[str, str]) -> None:
    """Compare some of the files whose xxh3 is known. Raises InputChangedError; files that cannot be read are for the workers."""
    wanted, left, other = spread(known, CHECKED_FILES), CHECKED_BYTES, []
    for name, ref in input_files(plan) if wanted else ():
        # a size that the source does not know counts as none
        if name not in wanted or (plan.sources.size(ref) or 0) > left:
            continue
        try:
            data = read_picture(plan.sources, ref, name)
            left -= len(data)
            if hash_of(data) != wanted[name]:
                other.append(name)
        except SampleError:
            continue
    if other:
        # an image may be part of several blends
        raise changed(output, list(dict.fromkeys(other)))


def require_rows_as_before(
    plan: Plan, output: Folder, known: Mapping[str, str], committed: Container[str]
) -> None:
    """Raise InputChangedError where rows that are equal but for further columns stand in another order than `committed` shards had them.

    Any other row takes its cells along wherever it moves.
    """
    values = CarriedValues(plan, lambda _: None)
    if not values.of_rows or not _has_equal_rows(plan):
        return
    shards = (shard for shard in plan.shards if plan.shard_name(shard) in committed)
    other = {name: None for shard in shards for name in values.changed(shard, known)}
    if other:
        raise changed(output, list(other))


def _has_equal_rows(plan: Plan) -> bool:
    listed = plan.layout.work.listed
    if listed is not None and len(set(map(hash, facts_of(listed)))) < len(listed):
        return True
    return any(isinstance(axis, PromptAxis) and axis.prompts.has_repeats for axis in plan.axes)
