"""Turns the signals that end a program into an exception, so that what is under way is dropped or finished whole."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stylebatch.errors import Interrupted

SENT_AGAIN_AFTER_S = 0.01


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Interrupted`; a second signal acts as usual. Main thread only.

    Python drops an exception that falls into a destructor or the callback of a weak reference: the signal is sent again then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        signal.signal(signum, former[signal.Signals(signum)])
        raise Interrupted(signum)

    def send_again(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, Interrupted):
            former_hook(dropped)
            return
        signum = dropped.exc_value.signum
        signal.signal(signum, interrupt)
        threading.Timer(SENT_AGAIN_AFTER_S, os.kill, (os.getpid(), signum)).start()

    former_hook = sys.unraisablehook
    former = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}
    sys.unraisablehook = send_again
    for sig in former:
        signal.signal(sig, interrupt)
    try:
        yield
    except SystemError as error:
        if isinstance(
            error.__cause__, Interrupted
        ):  # what Ray makes of one that falls into its waiting
            raise error.__cause__ from None
        raise
    finally:
        sys.unraisablehook = former_hook
        for sig, handler in former.items():
            signal.signal(sig, handler)
