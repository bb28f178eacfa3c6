"""Silences the notices of diffusers and transformers, and names the exceptions that they raise."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from huggingface_hub.errors import StrictDataclassError

WRONG = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    StrictDataclassError,
)
"""Exceptions of the libraries for configs and files that they cannot use; none of them promises fewer."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, no library logs a warning."""
    # `logging.disable` also covers the loggers that libraries create while they are imported.
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


def first_line(error: BaseException) -> str:
    """The first line of an error's text; some list every tensor."""
    return (str(error).strip().splitlines() or [error.__class__.__name__])[0][:300]
