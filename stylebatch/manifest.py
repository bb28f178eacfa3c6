"""Reads a manifest (YAML, or bare rows of pairs) into a `RunSpec`, with errors a person can act on."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError, create_model

from stylebatch.errors import ManifestError
from stylebatch.spec import METHOD_OPTIONS, MODEL_IDS, CustomMethod, RunSpec, join_inputs

Document = TypeVar("Document", bound=BaseModel)
ROW_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
YAML_SUFFIXES = (".yaml", ".yml")


def load_spec(
    path: str | Path, overrides: Sequence[str] = (), *, output: str | None = None
) -> RunSpec:
    """Read the manifest at `path`, apply `key=value` overrides (dotted keys, YAML values), validate.

    Rows (CSV, TSV, JSONL, Parquet of content, style[, label, caption]) become a run with explicit
    pairing, the default method and output `outputs/STEM`. Raises ManifestError, naming every fault.
    """
    path = Path(path)
    data = _read(path)
    for text in overrides:
        _override(data, text)
    if output is not None:
        data["output"] = (data["output"] if isinstance(data.get("output"), dict) else {}) | {
            "path": output
        }
    spec = _validated(path, join_inputs(data, path.parent), RunSpec, _NEXT_STEP)
    check_inputs(spec, str(path))
    return spec


def load_document(
    path: str | Path,
    overrides: Sequence[str],
    root: type[Document],
    join: Callable[[dict[str, Any], Path], dict[str, Any]],
    *,
    output: str | None = None,
) -> Document:
    """Read a YAML document of another kind (a training config) into `root`, as `load_spec` does a manifest."""
    path = Path(path)
    if path.suffix.lower() not in YAML_SUFFIXES:
        raise ManifestError(f"{path}: accepted: {', '.join(YAML_SUFFIXES)}")
    data = _read(path)
    for text in overrides:
        _override(data, text)
    if output is not None:
        data["output"] = output
    fields = ", ".join(root.model_fields)
    return _validated(
        path, join(data, path.parent), root, f"Next: correct the config; its fields are {fields}."
    )


def _validated(path: Path, data: dict[str, Any], root: type[Document], next_step: str) -> Document:
    try:
        text = json.dumps(_plain(data))
    except ValueError as error:
        raise ManifestError(f"{path}: not a plain document: {error}") from None
    try:
        return root.model_validate_json(text)
    except ValidationError as error:
        method = _method_class(data.get("method")) if root is RunSpec else None
        faults = (_explain(path, fault, root, method) for fault in error.errors())
        raise ManifestError("\n".join(faults) + f"\n{next_step}") from None


_NEXT_STEP = (
    "Next: correct the manifest; `stylebatch schema` prints every field with what it accepts."
)


def check_inputs(spec: RunSpec, where: str = "run specification") -> None:
    """Raise ManifestError when an input path of `spec` does not exist or cannot be a source.

    An output inside a folder of inputs is refused too: the next run would read results as inputs.
    """
    output = Path(spec.output.path).resolve()
    if output.exists() and not output.is_dir():
        raise ManifestError(
            f"{where}: output.path: found {spec.output.path!r}, which is a file; accepted: a directory"
        )
    for field in ("contents", "styles", "pairing", "prompts", "model"):
        section = getattr(spec, field)
        if section is None or section.path is None:
            continue
        path, found = Path(section.path), f"{where}: {field}.path: found {section.path!r}"
        if not path.exists():
            raise ManifestError(
                f"{found}, which does not exist; accepted: {_accepted(field)}.\n{_NEXT_STEP}"
            )
        is_rows = path.is_file() and path.suffix.lower() in ROW_SUFFIXES
        if (field in ("pairing", "prompts") and not is_rows) or (
            field != "model" and path.is_file() and not is_rows
        ):
            raise ManifestError(f"{found}; accepted: {_accepted(field)}.\n{_NEXT_STEP}")
        if (
            field in ("contents", "styles")
            and path.is_dir()
            and output.is_relative_to(path.resolve())
        ):
            raise ManifestError(
                f"{where}: output.path: found {spec.output.path!r}, which lies inside {field}.path "
                f"({section.path!r}); accepted: a directory outside the inputs, such as outputs/{spec.name}"
            )


def _accepted(field: str) -> str:
    rows = f"a {', '.join(ROW_SUFFIXES)} file of rows"
    model = "a `from_pretrained` folder or a .safetensors file"
    return {"pairing": rows, "prompts": rows, "model": model}.get(
        field, f"an image folder or {rows}, relative to the manifest"
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ManifestError(
            f"{path}: no such manifest; give a YAML file or rows ({', '.join(ROW_SUFFIXES)}), for example manifests/demo.yaml"
        )
    if path.suffix.lower() in ROW_SUFFIXES:
        return {
            "name": path.stem,
            "pairing": {"mode": "explicit", "path": path.name},
            "output": {"path": f"outputs/{path.stem}"},
        }
    if path.suffix.lower() not in YAML_SUFFIXES:
        raise ManifestError(
            f"{path}: found a {path.suffix or 'suffixless'} file; accepted: {', '.join(YAML_SUFFIXES + ROW_SUFFIXES)}"
        )
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: not valid YAML: {error}") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(data, dict):
        raise ManifestError(
            f"{path}: found {type(data).__name__} at the top; accepted: a mapping with contents, styles, output.\n{_NEXT_STEP}"
        )
    return data


def _plain(value: Any, depth: int = 0) -> Any:
    """YAML values as JSON knows them: text keys, dates as text. Raises ValueError for the rest."""
    if depth > 32:
        raise ValueError("circular or too deeply nested (a YAML alias that contains itself?)")
    if isinstance(value, dict):
        strange = [key for key in value if not isinstance(key, str)]
        if strange:
            raise ValueError(
                f"key {strange[0]} is {type(strange[0]).__name__}; accepted: text keys"
            )
        return {key: _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, depth + 1) for inner in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _override(data: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ManifestError(f"--set {text}: found no `key=value`; example: --set method.gamma=0.5")
    *parents, leaf = key.strip().split(".")
    node = data
    for parent in parents:
        inner = node.get(parent)
        if inner is None:
            implied = parent == "model" and leaf not in ("name", "path", "id")
            inner = {"name": "tiny"} if implied else {}
        elif isinstance(inner, str) and parent in ("model", "engine", "method"):
            inner = {"name": inner}
        elif not isinstance(inner, dict):
            raise ManifestError(f"--set {text}: {parent} is {inner!r}, which has no fields")
        node[parent] = dict(inner)
        node = node[parent]
    origins = ("name", "path", "id")
    if parents == ["model"] and leaf in origins:
        for other in (*origins, "revision"):
            node.pop(other, None)
    try:
        node[leaf] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ManifestError(f"--set {text}: the value is not valid YAML: {error}") from None


def _method_class(given: Any) -> type[BaseModel] | None:
    """The options that a raw `method` section is checked against."""
    if not isinstance(given, dict):
        return METHOD_OPTIONS.get(str(given))
    if given.get("path") is None:
        return METHOD_OPTIONS.get(str(given.get("name", "styleid")))
    try:
        return CustomMethod.model_construct(path=str(given["path"])).load_class()
    except ValueError:
        return CustomMethod


def _explain(
    path: Path, fault: Any, root: type[BaseModel], method: type[BaseModel] | None = None
) -> str:
    """`FILE: field.path: found VALUE; what is accepted`. `method`: class of the section `method`."""
    if fault["loc"][:1] == ("method",) and method is not None and len(fault["loc"]) > 1:
        fault = {**fault, "loc": ("method", *fault["loc"][2:])}  # without the name of the choice
        root = create_model("Manifest", method=(method, ...))
    if fault["type"] == "method_unknown":
        given = fault["input"].get("name") if isinstance(fault["input"], dict) else fault["input"]
        return (
            f"{path}: method.name: found {json.dumps(given, default=str)}; accepted: "
            f"{', '.join(METHOD_OPTIONS)}, an entry point of the group stylebatch.methods, or {{path: FILE.py:CLASS}}"
        )
    field = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    found = json.dumps(fault["input"], ensure_ascii=False, default=str)
    found = found if len(found) <= 80 else found[:77] + "..."
    if fault["type"] == "extra_forbidden":
        accepted = list(_section_at(fault["loc"][:-1], root).model_fields)
        close = difflib.get_close_matches(str(fault["loc"][-1]), accepted, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{path}: {field}: unknown key with value {found}; {hint}accepted keys: {', '.join(accepted)}"
    accepts = _accepts(fault["loc"], root)
    if fault["type"] == "missing":
        return f"{path}: {field}: missing, and it has no default; accepted: {accepts}"
    if fault["type"] == "model_type" or field == "model.name":
        return f"{path}: {field}: found {found}; accepted: {accepts}"
    if fault["type"] == "value_error":
        return f"{path}: {f'{field}: ' if field else ''}{message}" + (
            "" if isinstance(fault["input"], dict) else f" (found {found})"
        )
    return f"{path}: {field}: found {found}; {message[0].lower()}{message[1:]}"


def _accepts(loc: Sequence[int | str], root: type[BaseModel]) -> str:
    """What the field at `loc` takes, from the schema's own words."""
    if not loc:
        return f"a mapping with {', '.join(root.model_fields)}"
    if tuple(loc) == ("model", "name"):
        return f"{', '.join(('tiny', *MODEL_IDS))}, or {{path: FOLDER}}, or {{id: OWNER/NAME}}"
    parent = _section_at(loc[:-1], root)
    field = parent.model_fields.get(str(loc[-1]))
    section = _section_at(loc, root)
    if section is not parent:
        return f"a mapping with {', '.join(section.model_fields)}"
    return (field.description if field is not None else None) or "see `stylebatch schema`"


def _section_at(loc: Sequence[int | str], root: type[BaseModel]) -> type[BaseModel]:
    """The section that `loc` names or lies in."""
    model = root
    for part in loc:
        field = model.model_fields.get(str(part))
        annotations = () if field is None else (field.annotation, *get_args(field.annotation))
        inner = [a for a in annotations if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            break
        model = inner[0]
    return model
