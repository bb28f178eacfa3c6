"""Grids of sampled pairings, by the pool that their contents draw from."""

from __future__ import annotations

from stylebatch.planning.bucketed_samples import BucketedSamples
from stylebatch.planning.grid import Groups
from stylebatch.planning.independent import IndependentGrid
from stylebatch.planning.sampled_pools import SampledPools
from stylebatch.spec.pairing import Sampling

SampleGrid = SampledPools | IndependentGrid | BucketedSamples


def sample_grid(
    counts: tuple[int, int], sides: tuple[int, int], drawn: Sampling
) -> SampledPools | IndependentGrid:
    """The pairs that so many contents draw from so many styles; `sides`: rows and columns per block at most."""
    (num_contents, num_styles), (rows, columns) = counts, sides
    if drawn.pool == "independent":
        return IndependentGrid(Groups.of_at_most(num_contents, rows), num_styles, columns, drawn)
    return SampledPools(num_contents, num_styles, rows, columns, drawn)
