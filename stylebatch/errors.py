"""The errors that callers meet, with the exit code that the command line gives each."""

from __future__ import annotations


class StylebatchError(Exception):
    """Base of all errors that are explained in one paragraph, without a traceback."""

    exit_code = 1


class ManifestError(StylebatchError, ValueError):
    """Bad manifest, option, argument or model; names the file, field, value and what is accepted."""

    exit_code = 2


class OutputLockedError(StylebatchError):
    """Another run holds the output directory."""

    exit_code = 4


class PlanChangedError(StylebatchError):
    """The output directory holds shards of a plan that would give other pixels."""

    exit_code = 4


class StorageError(StylebatchError, OSError):
    """Writing the output failed (disk full, no permission, remote store)."""

    exit_code = 5


class LeaderFailedError(StylebatchError):
    """The first rank could not go on and has told why; the others end with its exit code, and say nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("the first rank told why")
        self.exit_code = exit_code


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; nothing partial was committed. Exit code 128 + signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.exit_code = 128 + signum


class SampleError(Exception):
    """One sample cannot be made; final. `code` goes to `error_code`, the text to `error_message`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
