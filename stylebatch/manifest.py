"""Reads a manifest (YAML, or rows of pairs) into a `RunSpec`; errors name the field and what it accepts."""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo

from stylebatch.data.places import exists, is_file, near
from stylebatch.data.sources.hub_datasets import local_copy
from stylebatch.data.sources.kinds import accepted_kinds, is_source, is_there
from stylebatch.data.sources.patterns import root_of
from stylebatch.documents import MAX_BYTES, MAX_DEPTH, DocumentError, parse
from stylebatch.errors import ManifestError, StorageError
from stylebatch.folder import Folder
from stylebatch.methods.user import CustomMethod
from stylebatch.models.model_section import MODEL_IDS
from stylebatch.paths import is_address
from stylebatch.section import Section
from stylebatch.spec import DEFAULT_METHOD, METHOD_OPTIONS, RunSpec, join_inputs

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
    return spec_of(data, str(path))


def spec_of(data: dict[str, Any], place: str) -> RunSpec:
    """The run that raw `data` describes, as if it stood in a manifest at `place`. Raises as `load_spec`."""
    path = Path(place)
    spec = _validated(path, join_inputs(data, path.parent), RunSpec, _NEXT_STEP)
    check_inputs(spec, place)
    return spec


def recorded_spec(data: dict[str, Any], path: str) -> RunSpec:
    """The manifest stored in an output's run.json. Raises ManifestError if it is damaged."""
    try:
        return RunSpec.model_validate_json(json.dumps(data))
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in ("spec", *fault["loc"]))
        raise ManifestError(
            f"{path}: is damaged: {field}: {fault['msg']}. Next: restore it, or run the manifest with --output DIR"
        ) from None


def load_document(
    path: str | Path,
    overrides: Sequence[str],
    root: type[Document],
    join: Callable[[dict[str, Any], Path], dict[str, Any]],
    *,
    output: str | None = None,
) -> Document:
    """Read another kind of YAML document (a training config) into `root`, as `load_spec` reads a manifest."""
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
    # By way of JSON: pydantic's strict mode accepts a list for a tuple there, and not from Python objects.
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
    """Raise ManifestError if an input path of `spec` does not exist or cannot be a source.

    An output inside a folder of inputs is refused too: the next run would read results as inputs.
    """
    output = spec.output.path
    if is_address(output):
        _reachable(output, f"{where}: output.path")
    else:
        _require_free(output, where)
    for field in ("contents", "styles", "pairing", "prompts", "model"):
        section = getattr(spec, field)
        if section is None or section.path is None:
            continue
        path, found = section.path, f"{where}: {field}.path: found {section.path!r}"
        is_images = field in ("contents", "styles")
        if is_images:
            path = local_copy(path, field)
        if is_address(path):
            _reachable(path, f"{where}: {field}.path")
        if not (is_there(path) if is_images else exists(path)):
            meant = near(path)
            hint = f"; did you mean {meant}?" if meant else ""
            raise ManifestError(
                f"{found}, which does not exist{hint}; accepted: {_accepted(field)}.\n{_NEXT_STEP}"
            )
        is_rows = Path(path).suffix.lower() in ROW_SUFFIXES and is_file(path)
        if (field in ("pairing", "prompts") and not is_rows) or (
            is_images and not is_source(path, field, section)
        ):
            raise ManifestError(f"{found}; accepted: {_accepted(field)}.\n{_NEXT_STEP}")
        if is_images and _lies_in(output, root_of(path)):
            raise ManifestError(
                f"{where}: output.path: found {output!r}, which lies inside {field}.path "
                f"({path!r}); accepted: a directory outside the inputs, such as outputs/{spec.name}"
            )


def _reachable(address: str, where: str) -> Folder:
    """The folder. Raises ManifestError for a store that this installation does not know."""
    try:
        return Folder.at(address)
    except StorageError as error:
        raise ManifestError(
            f"{where}: {error} Next: pip install 'stylebatch[s3]' for s3://, 'stylebatch[gcs]' for gs://"
        ) from None


def _lies_in(output: str, folder: str) -> bool:
    """Whether an output would be listed among the files of a folder."""
    if is_address(output) or is_address(folder):
        return f"{output.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")
    return Path(output).resolve().is_relative_to(Path(folder).resolve())


def _require_free(text: str, where: str) -> None:
    """Raise ManifestError if a file or a broken link is in the way of an output."""
    path = Path(text)
    try:
        # not `resolve`: since Python 3.13 it passes a loop of links
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
        # the deepest part that exists; a broken link exists as a link alone
        nearest = next(p for p in (path, *path.parents) if p.is_symlink() or p.exists())
        is_free = nearest.is_dir()
    except OSError as error:
        is_loop = error.errno == errno.ELOOP
        reason = "a loop of symbolic links" if is_loop else error.strerror
        raise ManifestError(
            f"{where}: output.path: found {_short(repr(text))} ({reason}); accepted: a directory"
        ) from None
    if not is_free:
        what = "a file" if nearest.exists() else "a link that leads nowhere"
        place = "which" if nearest == path else f"where {str(nearest)!r}"
        raise ManifestError(
            f"{where}: output.path: found {text!r}, {place} is {what}; accepted: a directory"
        )


def _accepted(field: str) -> str:
    rows = f"a {', '.join(ROW_SUFFIXES)} file of rows"
    model = "a `from_pretrained` folder or a .safetensors file"
    return {"pairing": rows, "prompts": rows, "model": model}.get(
        field, f"{accepted_kinds()}, relative to the manifest"
    )


def _read(path: Path) -> dict[str, Any]:
    if not os.path.exists(path):
        meant = near(str(path))
        hint = f"did you mean {meant}? " if meant else ""
        raise ManifestError(
            f"{path}: no such manifest; {hint}give a YAML file or rows ({', '.join(ROW_SUFFIXES)}), for example manifests/demo.yaml"
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
        with path.open("rb") as file:
            data = parse(file.read(MAX_BYTES + 1))  # one byte over the bound is refused
    except DocumentError as error:
        raise ManifestError(f"{path}: {error}") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(data, dict):
        raise ManifestError(
            f"{path}: found {type(data).__name__} at the top; accepted: a mapping with contents, styles, output.\n{_NEXT_STEP}"
        )
    return data


def _plain(value: Any, depth: int = 0) -> Any:
    """YAML values as JSON, whose keys are text; whole numbers become it. Raises ValueError for other keys."""
    # twice the bound of a document: an override is parsed alone and may sit deep in the manifest
    if depth > 2 * MAX_DEPTH:
        raise ValueError(f"nested over {2 * MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        strange = [key for key in value if not isinstance(key, str) and type(key) is not int]
        if strange:
            raise ValueError(
                f"key {strange[0]} is {type(strange[0]).__name__}; accepted: text, and whole numbers. Next: put quotes around it"
            )
        found = {str(key): _plain(inner, depth + 1) for key, inner in value.items()}
        if len(found) < len(value):
            twice = next(key for key in value if type(key) is int and str(key) in value)
            raise ValueError(f"key {twice} stands twice, as a number and as text")
        return found
    if isinstance(value, list):
        return [_plain(inner, depth + 1) for inner in value]
    return value


def _override(data: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ManifestError(
            f"--set {_short(text)}: found no `key=value`; example: --set method.gamma=0.5"
        )
    *parents, leaf = key.strip().split(".")
    node = data
    for parent in parents:
        inner = node.get(parent)
        if inner is None:
            # An option of the model without a model means the default one, which has to be named then.
            implied = parent == "model" and leaf not in ("name", "path", "id")
            inner = {"name": "tiny"} if implied else {}
        elif isinstance(inner, str) and parent in ("model", "engine", "method"):
            inner = {"name": inner}
        elif not isinstance(inner, dict):
            raise ManifestError(
                f"--set {_short(text)}: {parent} is {_short(repr(inner))}, which has no fields"
            )
        node[parent] = dict(inner)
        node = node[parent]
    origins = ("name", "path", "id")
    if parents == ["model"] and leaf in origins:
        # Another origin replaces the manifest's: two of them would be refused.
        for other in (*origins, "revision"):
            node.pop(other, None)
    try:
        node[leaf] = parse(value)
    except DocumentError as error:
        raise ManifestError(f"--set {_short(text)}: {error}") from None


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _method_class(section: Any) -> type[BaseModel] | None:
    """The options that a raw `method` section is checked against."""
    if not isinstance(section, dict):
        return METHOD_OPTIONS.get(str(section))
    if section.get("path") is None:
        return METHOD_OPTIONS.get(str(section.get("name", DEFAULT_METHOD.name)))
    try:
        return CustomMethod.model_construct(path=str(section["path"])).load_class()
    except ValueError:
        return CustomMethod


def _explain(
    path: Path, fault: Any, root: type[BaseModel], method: type[BaseModel] | None = None
) -> str:
    """`FILE: field.path: found VALUE; what is accepted`. `method`: class of the section `method`."""
    if fault["loc"][:1] == ("method",) and method is not None and len(fault["loc"]) > 1:
        # pydantic puts the name of the chosen method between section and field
        fault = {**fault, "loc": ("method", *fault["loc"][2:])}
        root = create_model("Manifest", method=(method, ...))
    # parts such as `function-after[check(), str]` name a branch of a union, not a field
    loc = tuple(part for part in fault["loc"] if "[" not in str(part))
    if fault["type"] == "method_unknown":
        name = fault["input"].get("name") if isinstance(fault["input"], dict) else fault["input"]
        return (
            f"{path}: method.name: found {json.dumps(name, default=str)}; accepted: "
            f"{', '.join(METHOD_OPTIONS)}, an entry point of the group stylebatch.methods, or {{path: FILE.py:CLASS}}"
        )
    field = ".".join(map(str, loc))
    message = fault["msg"].removeprefix("Value error, ")
    found = _short(json.dumps(fault["input"], ensure_ascii=False, default=str))
    if fault["type"] == "extra_forbidden":
        section, key = _section_at(loc[:-1], root), str(loc[-1])
        accepted = list(_fields(section))
        close = _elsewhere(key, root) or difflib.get_close_matches(key, accepted, n=1)
        if issubclass(section, Section) and key in section.OTHER_NAMES:
            close = [section.OTHER_NAMES[key]]
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{path}: {field}: unknown key with value {found}; {hint}accepted keys: {', '.join(accepted)}"
    accepts = _accepts(loc, root)
    if fault["type"] == "missing":
        return f"{path}: {field}: missing, and it has no default; accepted: {accepts}"
    if fault["type"] == "tuple_type":
        return f"{path}: {field}: found {found}; accepted: {_described(loc, root)}"
    if fault["type"] == "model_type" or field == "model.name":
        names = ("tiny", *MODEL_IDS) if field == "model.name" else ()
        close = difflib.get_close_matches(str(fault["input"]), names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{path}: {field}: found {found}; {hint}accepted: {accepts}"
    if fault["type"] == "value_error":
        return f"{path}: {f'{field}: ' if field else ''}{message}" + (
            "" if isinstance(fault["input"], dict) else f" (found {found})"
        )
    words = re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))
    close = difflib.get_close_matches(str(fault["input"]), words, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{path}: {field}: found {found}; {hint}{message[0].lower()}{message[1:]}"


def _elsewhere(key: str, root: type[BaseModel]) -> list[str]:
    """Where else a manifest has a key of this name, as `engine.device`; none where it is not one place."""
    places = [
        f"{section}.{key}"
        for section in root.model_fields
        if key in _fields(_section_at((section,), root))
    ]
    return places if len(places) == 1 else []


def _accepts(loc: Sequence[int | str], root: type[BaseModel]) -> str:
    """What the field at `loc` accepts, in the words of its description."""
    if not loc:
        return f"a mapping with {', '.join(root.model_fields)}"
    if tuple(loc) == ("model", "name"):
        return f"{', '.join(('tiny', *MODEL_IDS))}, or {{path: FOLDER}}, or {{id: OWNER/NAME}}"
    parent, section = _section_at(loc[:-1], root), _section_at(loc, root)
    # a member of a list has no field of its own
    if section is not parent or isinstance(loc[-1], int):
        return f"a mapping with {', '.join(_fields(section))}"
    return _described(loc, root)


def _described(loc: Sequence[int | str], root: type[BaseModel]) -> str:
    field = _fields(_section_at(loc[:-1], root)).get(str(loc[-1]))
    return (field.description if field is not None else None) or "see `stylebatch schema`"


def _fields(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """Fields by the names that a manifest has for them."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _section_at(loc: Sequence[int | str], root: type[BaseModel]) -> type[BaseModel]:
    """The innermost section on the way to `loc`."""
    model = root
    for part in loc:
        field = _fields(model).get(str(part))
        annotations = () if field is None else (field.annotation, *get_args(field.annotation))
        # the members of a union may carry annotations of their own
        kinds = [getattr(one, "__origin__", one) for one in annotations]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            break
        model = inner[0]
    return model
