"""Columns of a record that say where on the plan's axes a sample stands."""

from __future__ import annotations

from typing import Any

from stylebatch.methods.input_kinds import SET, TEXT
from stylebatch.planning.plan import Plan, Sample


def places_of(plan: Plan, sample: Sample, *, is_cut: bool) -> dict[str, Any]:
    """Columns that say where on the axes the sample stands."""
    prompt = sample.prompt
    if prompt is None:
        content, style = plan.images(0)[sample.row], plan.images(1)[sample.column]
        return {
            "content_id": content.id,
            "style_id": style.id,
            "row": sample.listed.number,
            "style_images": [part.id for part in style.parts] or [style.id],
            "style_weights": [part.weight for part in style.parts] or [1.0],
            "mask_id": content.mask_id,
        }
    found = {
        "id": prompt.id,
        TEXT: prompt.prompt,
        "negative_prompt": prompt.negative_prompt or "",
        "prompt_truncated": is_cut,
        "image": prompt.image,
        "mask": prompt.mask,
    }
    if "set" in plan.options.axes():
        first = plan.reference_of(sample.column)
        shown = None if first is None else plan.request(first, sample.column).prompt
        found[SET] = prompt.style
        found["reference"] = prompt.reference or (shown.id if shown else "")
    return found
