"""Reads the bytes of an input picture, once; everything else works on them in memory."""

from __future__ import annotations

from typing import Protocol

import xxhash

from stylebatch.data.sources.local import require_few_bytes
from stylebatch.data.sources.source import Ref
from stylebatch.errors import SampleError, StorageError


class Reader(Protocol):
    """One source, or those of a run."""

    def read(self, ref: Ref) -> bytes:
        """As `Source.read`."""
        ...

    def size(self, ref: Ref) -> int | None:
        """As `Source.size`."""
        ...


def read_picture(reader: Reader, ref: Ref, name: str) -> bytes:
    """The image's bytes. Every input picture comes through here: contents, styles, masks, references, training images.

    `name` stands for the image in errors. Raises SampleError: `missing`, `too_large` (over 1 GiB), or `decode` for what
    cannot be read or is empty. Raises StorageError for a store that does not answer.
    """
    try:
        data = reader.read(ref)
        require_few_bytes(len(data))
    except SampleError as error:
        raise SampleError(error.code, f"{name}: {error}") from None
    except FileNotFoundError:
        raise SampleError("missing", f"{name}: no such file") from None
    # Neither is the picture's fault, so that no sample may fail for it.
    except (MemoryError, StorageError):
        raise
    except Exception as error:  # noqa: BLE001 - libraries of archives and stores have errors of their own
        # The text of an OSError repeats the path, which `name` tells already.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SampleError("decode", f"{name}: cannot be read: {reason}") from None
    if not data:
        raise SampleError("decode", f"{name}: the file is empty (zero bytes)")
    return data


def hash_of(data: bytes) -> str:
    """xxh3 of a file's bytes, 16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(data)
