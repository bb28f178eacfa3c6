"""Which blocks a plan's method renders."""

from __future__ import annotations

from collections.abc import Callable

from stylebatch.engine.blocks.block_method import BlockMethod, Context
from stylebatch.engine.blocks.pair_blocks import PairBlocks
from stylebatch.engine.blocks.prompt_blocks import PromptBlocks
from stylebatch.engine.blocks.stylealigned_blocks import StyleAlignedBlocks
from stylebatch.engine.blocks.styleid_blocks import StyleIDBlocks
from stylebatch.methods.input_kinds import TEXT
from stylebatch.methods.user import users_of

Blocks = Callable[[Context], BlockMethod]

WITH_CACHE: dict[str, Blocks] = {
    "styleid": StyleIDBlocks,
    "stylealigned": StyleAlignedBlocks,
}
"""Blocks of built-in methods whose inputs may lie in the style cache, which methods do not know."""


def block_method(context: Context) -> BlockMethod:
    """The blocks of the plan's method; without a cache its axes decide."""
    section, options = context.plan.spec.method, context.plan.options
    by_axes: Blocks = PromptBlocks if TEXT in options.axes() else PairBlocks
    # a user's method may have any name
    kind = by_axes if users_of(section) else WITH_CACHE.get(section.name, by_axes)
    return kind(context)
