"""Keeps credentials and control characters out of standard output and error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from stylebatch.masking import CleanedStream


@contextmanager
def cleaned_streams() -> Iterator[None]:
    """Within the block `safe_text` cleans all that Python code prints. `sys.stdout.bare` is the stream itself."""
    former = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, CleanedStream(stream)) for stream in former)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = former
