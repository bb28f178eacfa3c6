"""Code of the user: whatever it does, it fails as one kind of error, which names the file and the line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from pathlib import Path
from typing import NoReturn

from stylebatch.errors import Interrupted

_LONGEST = 500
_THE_WORLD_IS_FIXED = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class UserCodeError(Exception):
    """`FILE:LINE: what happened`. `source`: the line as it is written; `may_pass`: another attempt may end otherwise."""

    def __init__(self, text: str, source: str = "", *, may_pass: bool = False) -> None:
        super().__init__(text)
        self.source, self.may_pass = source, may_pass


@contextmanager
def user_code(
    file: Path, *, passes: Callable[[Exception], bool] = lambda error: False
) -> Iterator[None]:
    """Run code that `file` defines. Raises UserCodeError for what it raises, for `sys.exit` and for `os._exit`.

    Ctrl-C, and errors that `passes`, go through as they are. `sys.exit` and `os._exit` would end the process as a success.
    A changed working directory is changed back: the paths of the output are relative to it.
    """
    with _no_sudden_end(), chdir(os.curdir):
        try:
            yield
        except UserCodeError:
            raise
        except Exception as error:
            if passes(error):
                raise
            raise _explained(error, file) from error
        except BaseException as error:
            # SystemExit is a BaseException too, and is the user's error, not a wish to end the run
            if isinstance(error, (KeyboardInterrupt, Interrupted)):
                raise
            raise _explained(error, file) from error


@contextmanager
def user_import(
    file: Path, *, passes: Callable[[Exception], bool] = lambda error: False
) -> Iterator[None]:
    """As `user_code`, and what the code prints goes to standard error: standard output may be JSON."""
    with redirect_stdout(sys.stderr), user_code(file, passes=passes):
        yield


def place_of(function: object) -> str:
    """`FILE:LINE` where a function is defined, or an empty text."""
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def _explained(error: BaseException, file: Path) -> UserCodeError:
    # str(error) may raise: `__str__` is the user's code as well
    explained = traceback.TracebackException.from_exception(error)
    text = " ".join(f"{type(error).__name__}: {explained}".split()).rstrip(": ")
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    if isinstance(error, SystemExit):
        text += (
            " (the code ends the process; accepted: a result, or an error that says what is wrong)"
        )
    # the last frame in their file: deeper ones are of libraries that they called
    frames = [frame for frame in explained.stack if _same(frame.filename, file)]
    if frames:
        place, source = f"{file}:{frames[-1].lineno}", frames[-1].line or ""
    elif isinstance(error, SyntaxError) and error.filename:
        place, source = f"{error.filename}:{error.lineno}", (error.text or "").strip()
    else:
        place, source = str(file), ""
    # a mount or a store may come back; a missing file will not
    may_pass = isinstance(error, OSError) and not isinstance(error, _THE_WORLD_IS_FIXED)
    return UserCodeError(f"{place}: {text}", source, may_pass=may_pass)


def _same(name: str, file: Path) -> bool:
    return name == str(file) or Path(name).absolute() == file.absolute()


@contextmanager
def _no_sudden_end() -> Iterator[None]:
    """`os._exit` raises SystemExit in this process; in one forked from it, it ends that one."""
    real, process = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        # a forked child, such as one of multiprocessing, ends by `os._exit`
        if os.getpid() != process:
            real(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = real
