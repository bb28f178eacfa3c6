"""The dataset card (README.md of an output): YAML that `datasets` reads, lineage, licences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from stylebatch.data.plan import PairPlan
from stylebatch.data.prompt_plan import PromptPlan
from stylebatch.data.shards import Plan
from stylebatch.data.sources import ImageRow
from stylebatch.spec import Source
from stylebatch.store.commit import write_bytes
from stylebatch.store.records import json_columns, schema_of

_TYPES = {
    pa.string(): "string",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.float64(): "float64",
    pa.bool_(): "bool",
}


def write_card(plan: Plan, output: Path, *, num_samples: int, version: str) -> Path:
    """Write `README.md`: configs, features (ClassLabel names for `cls`), lineage, how to load."""
    path = output / "README.md"
    header = yaml.safe_dump(_header(plan), sort_keys=False, allow_unicode=True, width=100)
    write_bytes(path, f"---\n{header}---\n{_body(plan, num_samples, version)}".encode())
    return path


def _header(plan: Plan) -> dict[str, Any]:
    return {
        "pretty_name": plan.spec.name,
        "license": plan.spec.license,
        "tags": [*_TAGS[isinstance(plan, PairPlan)], plan.spec.method.name, "webdataset"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "data/train-*.tar"}],
            }
        ],
        "dataset_info": {"features": _features(plan)},
    }


def _features(plan: Plan) -> list[dict[str, Any]]:
    """Features in the order in which `datasets` finds the members of a sample."""
    members: dict[str, dict[str, Any]] = {plan.spec.output.image.format: {"dtype": "image"}}
    schema = schema_of(plan.method, plan.extra_columns)
    members["json"] = {"struct": [_json_feature(schema, name) for name in json_columns(schema)]}
    if plan.spec.output.inputs:
        members |= {name: {"dtype": "image"} for name in plan.input_members}
    if plan.has_captions:
        members["txt"] = {"dtype": "string"}
    if plan.labels:
        names = {str(index): name for index, name in enumerate(plan.labels)}
        members["cls"] = {"dtype": {"class_label": {"names": names}}}
    ordered = [{"name": name, **members[name]} for name in sorted(members)]
    return [
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
        *ordered,
    ]


def _json_feature(schema: pa.Schema, name: str) -> dict[str, Any]:
    kind = schema.field(name).type
    return (
        {"name": name, "list": _TYPES[kind.value_type]}
        if pa.types.is_list(kind)
        else {"name": name, "dtype": _TYPES[kind]}
    )


def _body(plan: Plan, num_samples: int, version: str) -> str:
    method, image = plan.spec.method, plan.spec.output.image.format
    options = ", ".join(
        f"{k} {v}"
        for k, v in plan.method.model_dump(mode="json").items()
        if k != "name" and v is not None
    )
    pairs = isinstance(plan, PairPlan)
    what = "the stylised image" if pairs else "the image"
    ids = "ids, label, parameters" if pairs else "id, prompt, label, parameters"
    members = [f"`{image}` ({what})", f"`json` ({ids}, quality)"]
    members += ["`txt` (caption)"] if plan.has_captions else []
    members += ["`cls` (label; -1 where there is none)"] if plan.labels else []
    if plan.spec.output.inputs and plan.input_members:
        members += [
            ", ".join(f"`{name}`" for name in plan.input_members) + " (the inputs as fitted)"
        ]
    width, height = plan.image_size
    size, model = str(width) if pairs else f"{width} x {height}", f"model `{plan.model}`"
    return f"""
# {plan.spec.name}

{num_samples} samples from {_sources(plan)}, {size} px, rendered by stylebatch {version} with {method.name} ({options}) on {model}
(fingerprint `{plan.identity["model_fingerprint"][:16]}`), plan `{plan.digest[:16]}`.

```python
from datasets import load_dataset
dataset = load_dataset("PATH_OF_THIS_FOLDER", split="train")
```
```python
import glob, webdataset
shards = sorted(glob.glob("PATH_OF_THIS_FOLDER/data/*.tar"))
dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
```

Members of a sample: {", ".join(members)}.
Rows that could not be made are in `metadata/errors.parquet`. {_measures(plan)}

## Lineage and licences

{_lineage(plan)}
Licence of the dataset as its maker declared it: {plan.spec.license}.
"""


_TAGS = {True: ("stylised", "style-transfer"), False: ("synthetic", "diffusion")}


def _sources(plan: Plan) -> str:
    if isinstance(plan, PairPlan):
        counts = f"{len(plan.contents)} contents and {len(plan.styles)} styles"
        return f"{counts}\n({plan.spec.pairing.mode} pairing)"
    rows, sets = plan.totals
    return f"{rows} rows with prompts" + (
        f" in {sets} sets" if "reference.jpg" in plan.input_members else ""
    )


def _measures(plan: Plan) -> str:
    """What the quality columns say."""
    contrast = "`contrast` is the spread of luma."
    if isinstance(plan, PairPlan):
        return (
            "`structure` is the edge correlation with the content,\n"
            "`color_distance` the Lab distance to the style, `contrast` the spread of luma."
        )
    columns = schema_of(plan.method).names
    found = ["`structure` is the edge correlation with the image"] * ("structure" in columns)
    found += ["`color_distance` is the Lab distance to the reference of the set"] * (
        "color_distance" in columns
    )
    return ", ".join([*found, contrast])


def _lineage(plan: Plan) -> str:
    spec = plan.spec
    if isinstance(plan, PairPlan):
        return (
            f"Contents: {_origin(spec.contents, spec.pairing.path)}; licences: {_licences(plan.contents, spec.contents)}.\n"
            f"Styles: {_origin(spec.styles, spec.pairing.path)}; licences: {_licences(plan.styles, spec.styles)}."
        )
    assert isinstance(plan, PromptPlan)
    assert spec.prompts is not None
    lines = []
    if spec.contents is not None:
        named = ", ".join(plan.licenses) or spec.contents.license or "not recorded"
        lines.append(f"Images: {_origin(spec.contents, None)}; licences: {named}.")
    where = "a template of the manifest"
    if spec.prompts.path is not None:
        where = f"`{Path(spec.prompts.path).name}`"
    inputs = {
        name: len(files) for name, files in plan.files.items() if files and spec.contents is None
    }
    given = "".join(f", {count} files in column {name}" for name, count in inputs.items())
    return "\n".join([*lines, f"Prompts: {where}{given}."])


def _origin(source: Source | None, pairs: str | None) -> str:
    return f"`{Path(source.path if source is not None else str(pairs)).name}`"


def _licences(rows: Sequence[ImageRow], source: Source | None) -> str:
    declared = (source.license if source is not None else None) or ""
    found = sorted({row.license or declared for row in rows} - {""})
    return ", ".join(found) if found else "not recorded"
