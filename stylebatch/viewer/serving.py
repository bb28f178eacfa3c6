"""Runs a viewer until it is interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import closing

from stylebatch.errors import Interrupted
from stylebatch.folder import Folder
from stylebatch.interruption import interruptible
from stylebatch.viewer.answers import Answers
from stylebatch.viewer.marks import Marks, NotOursError
from stylebatch.viewer.watched import Watched
from stylebatch.viewer.web_server import WebServer

KEYS = "keys.txt"


def serve(output: Folder, *, port: int, keys: str | None, ready: Callable[[str], None]) -> int:
    """Serve `output` on this machine until a signal; `ready` is given the address. Returns 0 for SIGINT, which is the usual end,
    143 for SIGTERM.

    `port`: 0 for any; `keys`: file of marks, None for keys.txt in the working folder, without marks where that is somebody else's.
    Raises ManifestError where there is no output, or `port` or `keys` is taken.
    """
    with interruptible(), closing(Watched(output)) as watched:
        folder, name = os.path.split(keys or KEYS)
        marks, unmarked = Marks(Folder.at(folder or "."), name, watched.loaded.run), ""
        try:
            marks.keys()
        except NotOursError as error:
            if keys is not None:
                raise
            unmarked = str(error)
        answers = Answers(watched, None if unmarked else marks, unmarked)
        try:
            with WebServer(answers, port) as server:
                ready(server.url)
                server.serve_forever()
        except Interrupted as interruption:
            return 0 if interruption.signum == signal.SIGINT else interruption.exit_code
    return 0
