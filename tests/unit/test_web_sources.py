"""The web is asked where a manifest names its hosts, in bounded time and size, and a dead link is a row with its reason."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.reading import read_picture
from stylebatch.data.sources import web
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.errors import ManifestError, SampleError
from tests.support.packed import encoded, tar


class _Answers(BaseHTTPRequestHandler):
    """By the path: `/ok`, `/404`, `/busy/N` (N times 503), `/slow`, `/large`, `/cut`, `/to?URL`."""

    asked: Counter[str]

    def do_GET(self) -> None:
        path = self.path
        self.asked[path] += 1
        if path.startswith("/to?"):
            self._answer(302, b"", Location=path[4:])
        elif path == "/404":
            self._answer(404, b"no")
        elif path.startswith("/busy/") and self.asked[path] <= int(path[6:]):
            self._answer(503, b"later")
        elif path == "/slow":
            self.send_response(200)
            self.end_headers()
            while self.server.socket.fileno() >= 0:
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif path == "/large":
            self._answer(200, bytes(web.MAX_BYTES + 1))
        elif path == "/cut":
            self._answer(200, encoded(1), **{"Content-Length": str(len(encoded(1)) + 9)})
        else:
            self._answer(200, encoded(1))

    def _answer(self, code: int, data: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def _server() -> Iterator[tuple[str, Counter[str]]]:
    asked: Counter[str] = Counter()
    handler = type("Handler", (_Answers,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Counter[str]]]:
    with _server() as found:
        yield found


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PAUSE_S", 0.01)
    monkeypatch.setattr(web, "MAX_S", 0.6)
    monkeypatch.setattr(web, "MAX_BYTES", 100_000)


def _table(folder: Path, *urls: str) -> Path:
    table = folder / "rows.csv"
    table.write_text("path,label\n" + "".join(f'"{url}",l\n' for url in urls))
    return table


def _listed(table: Path, *hosts: str) -> Listing:
    return list_images(open_source(str(table), "contents", SourceOptions(web_hosts=hosts)))


def test_pictures_come_from_hosts_that_are_named(
    tmp_path: Path, server: tuple[str, Counter[str]]
) -> None:
    host, asked = server
    (tmp_path / "here.png").write_bytes(encoded(2))
    table = _table(tmp_path, f"http://{host}/ok", "here.png", f"http://{host}/busy/2", f"http://{host}/to?/ok")  # fmt: skip
    found = _listed(table, host)
    assert [found.sources.size(i.ref) is not None for i in found.items] == [True] * 4
    read = [found.sources.read(i.ref) for i in found.items]
    assert read == [encoded(1), encoded(2), encoded(1), encoded(1)]
    assert asked["/busy/2"] == 3
    before = asked.total()
    unnamed = list_images(open_source(str(table), "contents"))
    with pytest.raises(SampleError, match="an address of the web, which is not asked"):
        unnamed.sources.read(unnamed.items[0].ref)
    assert unnamed.sources.size(unnamed.items[0].ref) is None
    other = _listed(table, "images.example.org")
    with pytest.raises(SampleError, match=r"127\.0\.0\.1, which `web_hosts` does not name"):
        other.sources.read(other.items[0].ref)
    assert asked.total() == before


@pytest.mark.parametrize(
    ("path", "code", "told"),
    [
        ("/404", "missing", r"answers 404"),
        ("/busy/99", "unreachable", r"answers 503 .*, 4 times"),
        ("/slow", "unreachable", r"over 1 s|does not answer"),
        ("/large", "too_large", "over 100000 bytes"),
        ("/cut", "unreachable", r"bytes of \d+|IncompleteRead"),
        ("/to?http://localhost:1/x", "missing", "redirected to an address of localhost"),
        ("/to?https://example.org/x", "missing", "redirected to an address of example.org"),
        ("/to?file:///etc/passwd", "missing", "[Rr]edirect"),
    ],
)
def test_what_does_not_come_is_told_of_the_picture_in_bounded_time(
    tmp_path: Path, server: tuple[str, Counter[str]], path: str, code: str, told: str
) -> None:
    found = _listed(_table(tmp_path, f"http://{server[0]}{path}"), server[0])
    started = time.monotonic()
    with pytest.raises(SampleError, match=told) as caught:
        read_picture(found.sources, found.items[0].ref, "row 1")
    assert caught.value.code == code
    assert time.monotonic() - started < 5


def test_a_server_that_is_gone_is_told_of_the_picture(tmp_path: Path) -> None:
    with _server() as (host, _):
        pass
    found = _listed(_table(tmp_path, f"http://{host}/ok"), host)
    with pytest.raises(SampleError, match="does not answer") as caught:
        found.sources.read(found.items[0].ref)
    assert caught.value.code == "unreachable"


def test_kinds_without_addresses_refuse_the_option(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"a.png": encoded(1)})
    with pytest.raises(
        ManifestError, match=r"contents\.web_hosts: .*means nothing to the kind web"
    ):
        list_images(open_source(str(path), "contents", SourceOptions(web_hosts=("a.org",))))


HOSTS = st.sampled_from(["example.org", "*.example.org", "127.0.0.1", "a.example.org:8443"])
NAMES = st.sampled_from(
    [
        *("example.org", "EXAMPLE.org", "a.example.org", "a.example.org:8443", "badexample.org"),
        *("example.org.evil.net", "127.0.0.1", "[::1]", "10.0.0.1", "user@example.org", ""),
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(HOSTS), st.sampled_from(["https", "http", "HTTPS"]), NAMES, st.text(max_size=8))
def test_only_named_hosts_are_ever_asked(
    hosts: set[str], scheme: str, name: str, path: str
) -> None:
    if web.web_fault(f"{scheme}://{name}/{path}", hosts) is not None:
        return
    bare, _, port = name.lower().partition(":")
    assert scheme.lower() == "https" or bare in ("127.0.0.1", "localhost")
    assert (
        bare in {h for h in hosts if ":" not in h}
        or ("*.example.org" in hosts and bare.endswith(".example.org"))
        or ("a.example.org:8443" in hosts and (bare, port) == ("a.example.org", "8443"))
    )
