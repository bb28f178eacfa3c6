"""The errors that callers see, each with the exit code of the command line."""

from __future__ import annotations

from typing import Self

from stylebatch.masking import safe_text


class StylebatchError(Exception):
    """Base of all errors whose message suffices, without a traceback.

    `trace`: traceback of another process, where it helps to find the cause; the command line saves it to a file.
    """

    exit_code = 1
    trace = ""

    # Masked when shown, not when raised: `args` keeps the text for code that reads it.
    def __str__(self) -> str:
        return safe_text(super().__str__())


class ManifestError(StylebatchError, ValueError):
    """Bad manifest, option, argument or model; names the file, field, value and what is accepted."""

    exit_code = 2


class NoRunError(ManifestError):
    """A place that is given as an output holds no run.json; `place`: it, for people."""

    place = ""

    @classmethod
    def at(cls, place: str, text: str) -> Self:
        error = cls(text)
        error.place = place
        return error


class DamagedError(StylebatchError):
    """A file of a committed shard has changed; `verify` lists such files, `repair` renders them again."""

    exit_code = 3


class OutputLockedError(StylebatchError):
    """Another run holds the output directory."""

    exit_code = 4


class PlanChangedError(StylebatchError):
    """The output directory holds shards of a plan that would give other pixels.

    `ways`: what may be done now, a line each, in which `{run}` stands for `command`.
    """

    exit_code = 4
    ways: tuple[str, ...] = ()
    command = "stylebatch run MANIFEST"

    def __str__(self) -> str:
        text = super().__str__()
        if not self.ways:
            return text
        lines = (
            f"  {n}. {way.replace('{run}', self.command)}" for n, way in enumerate(self.ways, 1)
        )
        return safe_text("\n".join([text, "Next, one of:", *lines]))

    def offering(self, *ways: str) -> Self:
        """Itself, with these ways, unless it has some."""
        self.ways = self.ways or ways
        return self


class InputChangedError(PlanChangedError):
    """An input file has other bytes than when its samples were made."""


class StorageError(StylebatchError, OSError):
    """A file or store cannot be read or written (disk full, no permission, network); `strerror` is the reason alone."""

    exit_code = 5


class UnansweredError(StorageError):
    """A store gives no answer: what it holds is not known. Nothing may be taken for missing or damaged by this."""


class OddFileError(StorageError):
    """A file is expected, but the name is a folder, a pipe, a device or a looping link, or the file is absurdly large."""

    @classmethod
    def at(cls, place: str, reason: str = "not a regular file") -> OddFileError:
        error = cls(f"{place}: {reason}. Next: look at what it is, and move it out of the way")
        error.strerror = reason
        return error


class LeaderFailedError(StylebatchError):
    """The first rank failed and printed why; the other ranks end with its exit code and print nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("the first rank failed; see its message")
        self.exit_code = exit_code


# Like KeyboardInterrupt no Exception, so that no `except Exception` of a library swallows it.
class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; nothing partial was committed. Exit code 128 + signal. `kept`: what remains of the work."""

    kept = "committed shards are kept, nothing partial was written"

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum
        self.exit_code = 128 + signum


class SampleError(Exception):
    """One sample cannot be made; final. `code` goes to `error_code`, the text to `error_message`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(safe_text(message))
        self.code = code
