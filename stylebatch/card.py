"""The dataset card (README.md of an output): YAML that `datasets` reads, lineage, licences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from stylebatch.data.plan import Plan
from stylebatch.data.sources import ImageRow
from stylebatch.spec import Source
from stylebatch.store.commit import write_bytes
from stylebatch.store.records import JSON_COLUMNS, SCHEMA

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
        "tags": ["stylised", "style-transfer", plan.spec.method.name, "webdataset"],
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
    members["json"] = {"struct": [_json_feature(name) for name in JSON_COLUMNS]}
    if plan.spec.output.inputs:
        members |= {"content.jpg": {"dtype": "image"}, "style.jpg": {"dtype": "image"}}
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


def _json_feature(name: str) -> dict[str, Any]:
    kind = SCHEMA.field(name).type
    return (
        {"name": name, "list": _TYPES[kind.value_type]}
        if pa.types.is_list(kind)
        else {"name": name, "dtype": _TYPES[kind]}
    )


def _body(plan: Plan, num_samples: int, version: str) -> str:
    method, image = plan.spec.method, plan.spec.output.image.format
    options = ", ".join(
        f"{k} {v}"
        for k, v in method.model_dump(mode="json").items()
        if k != "name" and v is not None
    )
    members = [f"`{image}` (the stylised image)", "`json` (ids, label, parameters, quality)"]
    members += ["`txt` (caption)"] if plan.has_captions else []
    members += ["`cls` (label; -1 where there is none)"] if plan.labels else []
    members += (
        ["`content.jpg`, `style.jpg` (the inputs as fitted)"] if plan.spec.output.inputs else []
    )
    return f"""
# {plan.spec.name}

{num_samples} samples from {len(plan.contents)} contents and {len(plan.styles)} styles
({plan.spec.pairing.mode} pairing), {plan.size} px, rendered by stylebatch {version} with {method.name} ({options}) on model `{plan.model}`
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
Rows that could not be made are in `metadata/errors.parquet`. `structure` is the edge correlation with the content,
`color_distance` the Lab distance to the style, `contrast` the spread of luma.

## Lineage and licences

Contents: {_origin(plan.spec.contents, plan.spec.pairing.path)}; licences: {_licences(plan.contents, plan.spec.contents)}.
Styles: {_origin(plan.spec.styles, plan.spec.pairing.path)}; licences: {_licences(plan.styles, plan.spec.styles)}.
Licence of the dataset as its maker declared it: {plan.spec.license}.
"""


def _origin(source: Source | None, pairs: str | None) -> str:
    return f"`{Path(source.path if source is not None else str(pairs)).name}`"


def _licences(rows: Sequence[ImageRow], source: Source | None) -> str:
    declared = (source.license if source is not None else None) or ""
    found = sorted({row.license or declared for row in rows} - {""})
    return ", ".join(found) if found else "not recorded"
