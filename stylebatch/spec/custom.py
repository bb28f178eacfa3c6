"""Methods of users: a class in a file, in an installed module, or behind an entry point.

The class derives from `PromptMethod`; its fields are options of the manifest, checked as those of built-in methods.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from stylebatch.spec.method import RECORD_COLUMNS, PromptMethod
from stylebatch.spec.section import Section

ENTRY_POINTS = "stylebatch.methods"
_FORM = "FILE.py:CLASS, relative to the manifest, or package.module:CLASS"
_loaded: dict[tuple[str, str], type[PromptMethod]] = {}


class CustomMethod(Section):
    """A method of the user's: `{path: FILE.py:CLASS, OPTION: VALUE, ...}`; its options are the fields of the class."""

    name: str = Field("", description="Name in the records; default the class's name")
    path: str = Field(min_length=3, description=f"{_FORM}; a class derived from PromptMethod")
    options: dict[str, Any] = Field(
        {}, description="Options of the method; they may also stand beside `path`"
    )

    @model_validator(mode="before")
    @classmethod
    def _options_beside_path(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        own = {key: data[key] for key in ("name", "path", "options") if key in data}
        beside = {key: value for key, value in data.items() if key not in own}
        options = own.get("options", {})
        if not isinstance(options, dict):
            return data
        return own | {"options": {**options, **beside}}

    @model_validator(mode="after")
    def _options_fit_the_class(self) -> CustomMethod:
        self.load()
        if not self.name:
            object.__setattr__(self, "name", self.load_class().__name__.lower())
        return self

    def load_class(self) -> type[PromptMethod]:
        """The class. Raises ValueError, saying what `path` accepts."""
        file, _, name = self.path.rpartition(":")
        if not file or not name.isidentifier():
            raise ValueError(f"path: found {self.path!r}; accepted: {_FORM}")
        key = (self.path, self.source_digest())
        if key not in _loaded:
            found = getattr(_module(file, key[1]), name, None)
            if not (isinstance(found, type) and issubclass(found, PromptMethod)):
                what = "no such name" if found is None else "not a class derived from PromptMethod"
                raise ValueError(f"path: {name} in {file}: {what}; accepted: {_FORM}")
            taken = sorted(RECORD_COLUMNS & set(found.model_fields))
            if taken:
                raise ValueError(
                    f"path: {name} has a field {taken[0]!r}, which is a column of the records; accepted: another name"
                )
            if not callable(getattr(found, "render", None)):
                raise ValueError(
                    f"path: {name} has no `render`; accepted: render(self, model, samples, *, batch)"
                )
            _loaded[key] = found
        return _loaded[key]

    def load(self) -> PromptMethod:
        """The method with its options; errors of pydantic for what its fields do not accept."""
        return self.load_class().model_validate_json(json.dumps(self.options))

    def source_digest(self) -> str:
        """sha256 of the file that defines the class: other code may give other pixels."""
        file = self.path.rpartition(":")[0]
        source = Path(file) if file.endswith(".py") else _source_of(file)
        try:
            return hashlib.sha256(source.read_bytes()).hexdigest()
        except OSError as error:
            raise ValueError(
                f"path: {file}: cannot be read ({error.strerror}); accepted: {_FORM}"
            ) from None


def entry_point(name: str) -> str | None:
    """`module:CLASS` that an installed package offers under this method name."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
    return next(iter(sorted(point.value for point in found)), None)


def _source_of(module: str) -> Path:
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None:
        raise ValueError(f"path: found no module {module!r}; accepted: {_FORM}")
    return Path(found.origin)


def _module(file: str, digest: str) -> Any:
    """The module of a file, under a name that its content decides, or an installed one."""
    try:
        if not file.endswith(".py"):
            return importlib.import_module(file)
        name = f"stylebatch_method_{digest[:16]}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]
    except Exception as error:
        raise ValueError(
            f"path: {file} cannot be imported: {error.__class__.__name__}: {error}"
        ) from error
