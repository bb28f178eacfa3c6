"""A viewer of an output in this process, and what a browser would ask it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylebatch.folder import Folder, Place
from stylebatch.viewer.answers import Answers, Request
from stylebatch.viewer.loaded import Loaded
from stylebatch.viewer.marks import Marks
from stylebatch.viewer.watched import Watched
from stylebatch.viewer.web_server import WebServer


def loaded_by(watched: Watched) -> Loaded:
    """What was read, once all is."""
    until = time.monotonic() + 60
    while watched.is_loading:
        assert time.monotonic() < until
        time.sleep(0.01)
    return watched.loaded


@contextmanager
def answering(output: Place, keys: Path | None = None) -> Iterator[Answers]:
    """The answers of a viewer that has read `output`."""
    folder = Folder.at(output)
    with closing(Watched(folder)) as watched:
        run = loaded_by(watched).run
        marks = None if keys is None else Marks(Folder.at(keys.parent), keys.name, run)
        yield Answers(watched, marks, "" if marks else "nowhere to write")


@contextmanager
def serving(output: Place, keys: Path | None = None) -> Iterator[WebServer]:
    """A server on a free port."""
    with answering(output, keys) as answers, WebServer(answers, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Said:
    """An answer over the network."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def error(self) -> str:
        return str(json.loads(self.data)["error"])


def ask(
    server: WebServer, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
) -> Said:
    """A request with the cookie and host of the viewer's own page, unless `headers` say otherwise ("" leaves one out)."""
    given = {
        "Host": f"127.0.0.1:{server.server_port}",
        "Cookie": f"{server.cookie}={server.token}",
    }
    given |= {name.replace("_", "-"): text for name, text in headers.items()}
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)) as to:
        to.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, text in given.items():
            if text:
                to.putheader(name, text)
        if body is not None:
            to.putheader("Content-Length", str(len(body)))
        to.endheaders(body)
        got = to.getresponse()
        return Said(got.status, dict(got.getheaders()), got.read())


def told(answers: Answers, path: str, **query: Any) -> Any:
    """An answer in JSON."""
    answer = answers.get(Request(path, {name: str(value) for name, value in query.items()}))
    assert answer.status == 200
    return json.loads(answer.data)


def found_rows(answers: Answers, **query: str) -> list[int]:
    """Numbers of the rows that a search finds."""
    answer = answers.get(Request("/api/search", query))
    bits = np.unpackbits(np.frombuffer(answer.data, np.uint8), bitorder="little")
    return np.flatnonzero(bits[: int(answer.headers["X-Rows"])]).tolist()


def columns_of(answers: Answers) -> dict[str, list[Any]]:
    """Values of the columns that go to the browser, read as the page reads them: None for NaN, names for codes."""
    state = told(answers, "/api/state")
    numbers = [one["column"] for one in state["numbers"]]
    categories = [one["column"] for one in state["categories"]]
    names: dict[str, list[str]] = {name: [] for name in categories}
    values: dict[str, list[Any]] = {name: [] for name in (*numbers, *categories)}
    for chunk in range(state["num_chunks"]):
        data = answers.get(Request("/api/columns", {"chunk": str(chunk)})).data
        length = int.from_bytes(data[:4], "little")
        head = json.loads(data[4 : 4 + length])
        assert head["first"] == len(values[categories[0]])
        assert length % 4 == 0
        for column, new in head["names"].items():
            names[column] += new
        for place, column in enumerate(values):
            kind = np.float32 if column in numbers else np.uint32
            found = np.frombuffer(data, kind, head["count"], 4 + length + 4 * place * head["count"])
            values[column] += [
                (None if np.isnan(one) else float(one)) if column in numbers else names[column][one]
                for one in found
            ]
        assert len(data) == 4 + length + 4 * head["count"] * len(values)
    return values
