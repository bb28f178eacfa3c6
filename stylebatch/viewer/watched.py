"""Keeps what the viewer knows of an output up to date while a run may write it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from stylebatch.errors import StylebatchError
from stylebatch.folder import Folder
from stylebatch.masking import safe_text
from stylebatch.store.lock_owner import Activity, activity
from stylebatch.store.output_record import read_run
from stylebatch.viewer.loaded import Loaded

AGAIN_S, AGAIN_REMOTE_S = 2.0, 10.0
"""Time between two looks at the commits of an output; a store takes a request or more for each."""


@dataclass
class Watched:
    """An output whose records are read by a thread of their own.

    `version` changes when rows that were read are no longer those of the output; `trouble`: why the last look failed.
    """

    output: Folder
    loaded: Loaded = field(init=False)
    version: int = 0
    is_loading: bool = True
    trouble: str = ""
    activity: Activity | None = None

    def __post_init__(self) -> None:
        self.loaded = Loaded(self.output, read_run(self.output))
        self._lock = threading.Lock()
        self._is_busy = False
        self._looked = float("-inf")
        self.look()

    def look(self) -> None:
        """See to it that new commits are found, soon: returns at once."""
        pause = AGAIN_S if self.output.local is not None else AGAIN_REMOTE_S
        with self._lock:
            if self._is_busy or time.monotonic() - self._looked < pause:
                return
            self._is_busy = True
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        try:
            run = read_run(self.output)
            self.activity = activity(self.output, run)
            if run != self.loaded.run or self.loaded.is_outdated:
                self.is_loading = True
                self.loaded, former = Loaded(self.output, run), self.loaded
                self.version += 1
                former.close()
            self.loaded.read_new()
            self.trouble = ""
        except (StylebatchError, OSError, ValueError) as error:
            self.trouble = safe_text(str(error))
        finally:
            self.is_loading = False
            self._looked = time.monotonic()
            self._is_busy = False

    def close(self) -> None:
        """Remove the temporary files."""
        self.loaded.close()
