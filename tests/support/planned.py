"""What plans hold, listed."""

from __future__ import annotations

from stylebatch.planning.plan import Plan, Sample
from stylebatch.planning.prompts import PromptRow


def samples_planned(plan: Plan) -> list[Sample]:
    """The samples in key order."""
    return [s for i in plan.shards for _, part in plan.samples(plan.shard(i)) for s in part]


def prompts_planned(plan: Plan) -> list[PromptRow]:
    """What the samples ask for, in key order."""
    return [sample.prompt for sample in samples_planned(plan) if sample.prompt is not None]
