"""Distinguishes local paths from addresses (URLs), and places in stores from other addresses."""

from __future__ import annotations

import posixpath
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from stylebatch.masking import masked

_SCHEMES = (
    *("s3", "s3a", "s3n", "gs", "gcs", "az", "abfs", "abfss", "adl", "wasb", "wasbs", "oci", "r2"),
    *("hf", "http", "https", "ftp", "ftps", "sftp", "ssh", "scp", "hdfs", "webhdfs", "file"),
    *("memory", "dbfs", "dropbox", "gdrive", "github", "data"),
)
_WEB = ("http", "https", "ftp", "ftps", "github", "data")
_STORE = re.compile(r"([a-z][a-z0-9+.-]*)://(?:[^/]|(?<=file://)/|(?<=local://)/)", re.IGNORECASE)
# Schemes by name for `s3:bucket/x`; any other two letters or more need a slash, since `C:x` is a Windows path.
_ADDRESS = re.compile(rf"\s*(?:[a-z][a-z0-9+.-]+:[/\\]|(?:{'|'.join(_SCHEMES)}):)", re.IGNORECASE)

ODD_PATH = re.compile(r"//|(?:^|/)\.\.?(?:/|$)")
"""Matches paths that `plain_path` may change."""
_HOST = re.compile(r"([^:]*:/*[^/]*)(/?)(.*)", re.DOTALL)


def is_address(text: str) -> bool:
    """Whether `text` is a URL, maybe mistyped: `s3://bucket/x`, `s3:/bucket/x`, `s3:bucket/x`; `C:/x` is not."""
    return _ADDRESS.match(text) is not None


def plain_path(text: str) -> str:
    """The path or address without `.`, `..` and, of a path, doubled slashes: as text, whatever links are on the way."""
    if not ODD_PATH.search(text):
        return text
    if not is_address(text):
        # of two slashes at the beginning normpath keeps both
        return f"/{posixpath.normpath(text).lstrip('/')}" if text[0] == "/" else posixpath.normpath(text)  # fmt: skip
    address, mark, query = text.partition("?")
    place, slash, path = _HOST.fullmatch(address).group(1, 2, 3)  # type: ignore[union-attr]  # it matches any text
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)  # empty ones stay: `a//b` is another object of a store
    return f"{place}{slash}{'/'.join(parts)}{mark}{query}"


def _local(text: str) -> str:
    if is_address(text):
        raise ValueError(
            "is an address; accepted: a path of this machine, such as a folder mounted there"
        )
    if "\0" in text:
        raise ValueError("holds a NUL character; accepted: a path of this machine")
    return text


LocalPath = Annotated[str, Field(min_length=1), AfterValidator(_local)]
"""A path of this machine; addresses are refused where the manifest is read."""


def require_place(text: str) -> str:
    """`text`, a path or the address of a place in a store, without credentials. Raises ValueError for another."""
    if "::" not in text and not is_address(text):
        return _local(text)
    found = _STORE.match(text)
    if "::" in text or found is None or "?" in text:
        raise ValueError(
            "is not the address of a folder; accepted: a path of this machine, or SCHEME://PLACE such as s3://bucket/folder"
        )
    if found[1].lower() in _WEB:
        raise ValueError(
            "is an address of the web, which is not asked; accepted: a path of this machine, or a place in a store such as "
            "s3://bucket/folder"
        )
    if masked(text) != text or "@" in text.split("/")[2]:
        raise ValueError(
            "holds credentials; accepted: an address without. Next: give them by the environment, a profile or the role of the machine"
        )
    return text


Place = Annotated[str, Field(min_length=1), AfterValidator(require_place)]
"""A path of this machine, or the address of a place in a store."""
