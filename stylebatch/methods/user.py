"""Methods of users: a class in a file, in an installed module, or behind an entry point.

The class derives from `PromptMethod` or `PairMethod`; its fields are options of the manifest, checked as those of built-in methods.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from stylebatch.methods.method import (
    IMAGES,
    RECORD_COLUMNS,
    BlockSize,
    MethodOptions,
    PairMethod,
    PromptMethod,
)
from stylebatch.methods.user_code import UserCodeError, place_of, user_import
from stylebatch.section import Section

ENTRY_POINTS = "stylebatch.methods"
_FORM = "FILE.py:CLASS, relative to the manifest, or package.module:CLASS"
_RENDER = {
    PromptMethod: "render(self, model, samples, *, batch)",
    PairMethod: "render(self, model, pairs, *, batch)",
}
_loaded: dict[tuple[str, str], type[MethodOptions]] = {}


class CustomMethod(Section):
    """A method of the user's: `{path: FILE.py:CLASS, OPTION: VALUE, ...}`; its options are the fields of the class."""

    name: str = Field("", description="Name in the records; default the class's name")
    path: str = Field(
        min_length=3, description=f"{_FORM}; a class derived from PromptMethod or PairMethod"
    )
    options: dict[str, Any] = Field(
        {}, description="Options of the method; they may also stand beside `path`"
    )

    @model_validator(mode="before")
    @classmethod
    def _options_beside_path(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        named = {key: data[key] for key in ("name", "path", "options") if key in data}
        beside = {key: value for key, value in data.items() if key not in named}
        options = named.get("options", {})
        if not isinstance(options, dict):
            return data
        return named | {"options": {**options, **beside}}

    @model_validator(mode="after")
    def _options_fit_the_class(self) -> CustomMethod:
        self.load()
        if not self.name:
            # the section is frozen; the name is filled in while it is made
            object.__setattr__(self, "name", self.load_class().__name__.lower())
        return self

    @property
    def file(self) -> Path:
        """The file that defines the class. Raises ValueError, saying what `path` accepts."""
        file, _, name = self.path.rpartition(":")
        if not file or not name.isidentifier():
            raise ValueError(f"path: found {self.path!r}; accepted: {_FORM}")
        return Path(file) if file.endswith(".py") else _source_of(file)

    def load_class(self) -> type[MethodOptions]:
        """The class. Raises ValueError, saying what `path` accepts and where the file is at fault."""
        # by content: an edited file in the same process (a notebook) is loaded anew
        key = (self.path, self.source_digest())
        if key not in _loaded:
            file, _, name = self.path.rpartition(":")
            try:
                with user_import(self.file):
                    found = getattr(module_of(file, key[1]), name, None)
            except UserCodeError as error:
                shown = f" (`{error.source}`)" if error.source else ""
                raise ValueError(f"path: {file} cannot be imported: {error}{shown}") from error
            _loaded[key] = _checked(found, f"path: {name} in {file}")
        return _loaded[key]

    def load(self) -> MethodOptions:
        """The method with its options; errors of pydantic for what its fields do not accept."""
        kind = self.load_class()
        try:
            with user_import(self.file, passes=lambda error: isinstance(error, ValidationError)):
                # by way of JSON, as strict fields take a list for a tuple from JSON alone
                method = kind.model_validate_json(json.dumps(self.options))
                _try(method)
        except UserCodeError as error:
            shown = f" (`{error.source}`)" if error.source else ""
            raise ValueError(f"path: {kind.__name__} cannot be used: {error}{shown}") from error
        return method

    def source_digest(self) -> str:
        """sha256 of the file that defines the class: other code may give other pixels."""
        source = self.file
        try:
            if source.exists() and not source.is_file():
                raise ValueError(f"path: {source}: not a file; accepted: {_FORM}")
            return hashlib.sha256(source.read_bytes()).hexdigest()
        except OSError as error:
            raise ValueError(
                f"path: {source}: cannot be read ({error.strerror}); accepted: {_FORM}"
            ) from None


def users_of(section: object) -> CustomMethod | None:
    """The section of the manifest, where it names a method of a user's."""
    return section if isinstance(section, CustomMethod) else None


def options_of(section: MethodOptions | CustomMethod) -> MethodOptions:
    """The options that a section gives: itself, or the fields of a user's class."""
    return section.load() if isinstance(section, CustomMethod) else section


def _checked(found: Any, where: str) -> type[MethodOptions]:
    """The class. Raises ValueError for what is no class of a method."""
    base = PairMethod if isinstance(found, type) and issubclass(found, PairMethod) else PromptMethod
    if not (isinstance(found, type) and issubclass(found, base)):
        bases = "PromptMethod or PairMethod"
        what = "no such name" if found is None else f"not a class derived from {bases}"
        raise ValueError(f"{where}: {what}; accepted: {_FORM}")
    taken = sorted(RECORD_COLUMNS & set(found.model_fields))
    if taken:
        raise ValueError(
            f"{where} has a field {taken[0]!r}, which is a column of the records; accepted: another name"
        )
    if issubclass(found, PromptMethod):
        _check_inputs(found, where)
    _check_flags(found, where)
    render = inspect.getattr_static(found, "render", None)
    if not callable(getattr(found, "render", None)):
        raise ValueError(f"{where} has no `render`; accepted: {_RENDER[base]}")
    # a partial, a static method, ...: its parameters are not checked
    if not inspect.isfunction(render):
        return found
    written = inspect.unwrap(render)
    kinds = (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    )
    if any(is_of(written) for is_of in kinds):
        what = "is a coroutine or a generator"
    else:
        try:
            # called as the engine will, with `self`, a model and samples
            inspect.signature(render).bind(None, None, None, batch=1)
            return found
        except TypeError as error:
            what = f"takes {inspect.signature(render)} ({error})"
    raise ValueError(f"{where}: render ({place_of(written)}) {what}; accepted: {_RENDER[base]}")


def _check_inputs(found: type[PromptMethod], where: str) -> None:
    if not isinstance(found.inputs, tuple) or not set(found.inputs) <= set(IMAGES):
        raise ValueError(
            f"{where}: inputs: found {found.inputs!r}; accepted: a tuple of {', '.join(IMAGES)}"
        )
    if found.inputs == ("mask",):
        raise ValueError(f"{where}: inputs: found a mask alone; accepted: image, or image and mask")


def _check_flags(found: type[MethodOptions], where: str) -> None:
    """Raise ValueError for a flag that the pipeline does not heed with a user's class."""
    heeded = ("takes_masks", "takes_blends") if issubclass(found, PairMethod) else ()
    for flag in ("keeps_features", "uses_sets", "takes_sizes", "takes_masks", "takes_blends"):
        value = getattr(found, flag, False)
        if not isinstance(value, bool) or (value and flag not in heeded):
            accepted = "True or False" if flag in heeded else "False"
            raise ValueError(f"{where}: {flag}: found {value!r}; accepted: {accepted}")


def _try(method: MethodOptions) -> None:
    """Ask for what a plan asks of the method. Raises UserCodeError where a number makes no sense."""
    size = BlockSize(samples=1, height=64, width=64, batch=16, native=64)
    counts = {
        "samples_per_block": method.samples_per_block(size),
        "evaluations": method.evaluations(size),
    }
    if isinstance(method, PromptMethod):
        counts["rows_per_sample"] = method.rows_per_sample
    else:
        counts["prepare_evaluations"] = method.prepare_evaluations("content")
        counts["prepared_bytes"] = method.prepared_bytes(size)
    for name, count in counts.items():
        least = 1 if name in ("rows_per_sample", "samples_per_block") else 0
        if not isinstance(count, int) or count < least:
            member = getattr(type(method), name)
            place = place_of(getattr(member, "fget", member))
            raise UserCodeError(
                f"{place}: {name}: found {count!r}; accepted: whole numbers from {least}"
            )


def entry_point(name: str) -> str | None:
    """`module:CLASS` that an installed package offers under this method name."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
    # sorted: two packages may offer one name, and the order of metadata is not fixed
    return next(iter(sorted(point.value for point in found)), None)


def _source_of(module: str) -> Path:
    try:
        with user_import(Path(module), passes=lambda error: isinstance(error, ImportError)):
            found = importlib.util.find_spec(module)  # imports the packages that it lies in
    except (ImportError, UserCodeError) as error:
        raise ValueError(
            f"path: module {module!r} cannot be found: {error}; accepted: {_FORM}"
        ) from error
    if found is None or found.origin is None:
        raise ValueError(f"path: found no module {module!r}; accepted: {_FORM}")
    return Path(found.origin)


def module_of(file: str, digest: str) -> Any:
    """The module of a file, under a name that its place and content decide, or an installed one."""
    if not file.endswith(".py"):
        return importlib.import_module(file)
    key = hashlib.sha256(f"{Path(file).absolute()} {digest}".encode()).hexdigest()
    name = f"stylebatch_method_{key[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # before it runs: dataclasses and pickle look a class's module up by name
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            # else the next import would find half a module
            del sys.modules[name]
            raise
    return sys.modules[name]
