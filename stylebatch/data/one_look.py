"""While inputs are listed, a store is asked each question once: all kinds of sources look at the same few files to know their own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
_ANSWERS: ContextVar[dict[Hashable, Any] | None] = ContextVar("answers", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """Within it, and within what it calls, answers are remembered; also a decorator."""
    if _ANSWERS.get() is not None:
        yield
        return
    token = _ANSWERS.set({})
    try:
        yield
    finally:
        _ANSWERS.reset(token)


def asked(question: Hashable, ask: Callable[[], T]) -> T:
    """The answer, from before where the question was asked within this look."""
    known = _ANSWERS.get()
    if known is None:
        return ask()
    if question not in known:
        known[question] = ask()
    found: T = known[question]
    return found


def is_looking() -> bool:
    """Whether answers are remembered."""
    return _ANSWERS.get() is not None
