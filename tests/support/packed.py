"""Small containers of pictures for tests: tars of samples, with whatever stands beside the pictures."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.images import picture

END = bytes(1024)


@cache
def encoded(seed: int, kind: str = "PNG") -> bytes:
    """A picture of 48 x 40 pixels."""
    buffer = io.BytesIO()
    picture(seed, 48, 40).save(buffer, kind)
    return buffer.getvalue()


def member(name: str, data: bytes, **facts: Any) -> bytes:
    """Header and data of one member; `facts` are fields of `TarInfo`."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in facts.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


def tar(path: Path, members: Mapping[str, bytes | dict[str, Any] | str]) -> Path:
    """A whole tar; mappings become JSON, texts UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, data in members.items():
        if isinstance(data, dict):
            data = json.dumps(data).encode()
        parts.append(member(name, data.encode() if isinstance(data, str) else data))
    path.write_bytes(b"".join(parts) + END)
    return path
