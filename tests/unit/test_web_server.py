"""Who is answered by the viewer, and that nothing of a request leads to a file."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator

import pytest

from stylebatch.viewer.web_server import WebServer
from tests.support.outputs import Pair, write_output
from tests.support.viewers import ask, serving

PAIRS = [Pair("cat/a.png", "s.jpg"), Pair("cat/b.png", "s.jpg", "decode")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("served")
    with serving(write_output(folder / "out", [PAIRS]), folder / "keys.txt") as found:
        yield found


def test_the_printed_address_sets_a_cookie_that_opens_all_else(server: WebServer) -> None:
    opened = ask(server, server.url.partition(f":{server.server_port}")[2], Cookie="")
    assert (opened.status, opened.headers["Location"]) == (303, "/")
    cookie = opened.headers["Set-Cookie"]
    assert cookie.endswith("; HttpOnly; SameSite=Strict; Path=/")
    page = ask(server, "/", Cookie=f"theme=dark; {cookie.partition(';')[0]}")
    assert (page.status, b"<dialog" in page.data) == (200, True)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": ""},
        {"Cookie": "stylebatch-1=x"},
        {"Cookie": "stylebatch-{port}=x"},
        {"Cookie": "stylebatch-{port}=\u00e9"},
        {"Cookie": '{"[;;==,'},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Host": ""},
        {"Host": "[::1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/state", "/picture?row=0&kind=result&side=0"])
def test_others_are_refused(server: WebServer, headers: dict[str, str], path: str) -> None:
    filled = {
        name: text.replace("{port}", str(server.server_port)) for name, text in headers.items()
    }
    said = ask(server, path, **filled)
    assert said.status in (400, 403)
    assert b"token" not in said.data or server.token.encode() not in said.data
    assert ask(server, "/api/state", Host=f"localhost:{server.server_port}").status == 200


def test_a_wrong_token_opens_nothing(server: WebServer) -> None:
    for token in ("", "x", server.token[:-1], f"{server.token}/", "%00", "%C3%A9"):
        said = ask(server, f"/open/{token}", Cookie="")
        assert said.status in (400, 403)
        assert "Set-Cookie" not in said.headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/../viewer.html", "/static/%2e%2e/card.md", "/static/", "/static/gallery.html", "//etc/passwd", "/../run.json",
        "/run.json", "/data/train-00000.tar", "/static/page.css/", "/%2fetc%2fpasswd", "/api/", "/api/state/..", "*", "/\\..\\x", "//[",
        "/picture?row=0&kind=../../run.json&side=0", "/picture?row=0&kind=content.jpg&side=0",
        "/picture?row=../0&kind=result&side=0", "/picture?row=-1&kind=result&side=0", "/picture?row=0&kind=result&side=1e9",
        "/picture?row=9&kind=result&side=0", "/picture?row=%D9%A1&kind=result&side=0", "/picture", "/api/rows", "/api/rows?at=0,",
        "/api/rows?at=99", "/api/columns?chunk=7", "/api/columns", "/api/sample?row=99999999999999999999", "/api/sample?row=1e3",
        "/api/search?" + "&".join(f"a{n}=1" for n in range(50)), "/api/rows?at=" + ",".join("0" * 600),
    ],
)  # fmt: skip
def test_odd_requests_are_an_error_and_open_nothing(server: WebServer, path: str) -> None:
    opened = list[str]()
    watching = True

    def hook(event: str, found: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened.append(str(found[0]))

    sys.addaudithook(hook)
    said = ask(server, path)
    watching = False
    assert said.status in (400, 404)
    assert json.loads(said.data)["error"]
    assert not [name for name in opened if "passwd" in name or name.endswith((".json", ".md"))]
    assert ask(server, "/api/state").status == 200


def test_bodies_are_json_of_bounded_size_from_the_own_page(server: WebServer) -> None:
    origin = f"http://127.0.0.1:{server.server_port}"
    body = b'{"rows": [0], "marked": true}'
    good = {"Origin": origin, "Content_Type": "application/json"}
    for changes, status in (
        ({"Origin": ""}, 403), ({"Origin": "http://evil.example"}, 403), ({"Content_Type": "text/plain"}, 415),
        ({"Cookie": ""}, 403), ({"Content_Type": ""}, 415),
    ):  # fmt: skip
        assert (
            ask(server, "/api/marks", method="POST", body=body, **(good | changes)).status == status
        )
    for length in (str((1 << 20) + 1), "-1", "1e3", ""):
        large = ask(server, "/api/marks", method="POST", Content_Length=length, **good)
        assert large.status == 413
    assert ask(server, "/api/state", method="POST", body=body, **good).status == 404
    assert ask(server, "/api/marks", method="PUT", body=body, **good).status == 501
    marked = ask(server, "/api/marks", method="POST", body=body, **good)
    assert json.loads(marked.data) == {"keys": ["000000000"]}


def test_noise_on_the_port_costs_nothing(server: WebServer) -> None:
    for noise in (
        b"\x16\x03\x01\x02\x00",
        b"GET /\r\n\r\n",
        b"GET " + b"x" * 70000,
        b"",
        b"\n" * 99,
    ):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as to:
            to.sendall(noise)
    assert ask(server, "/api/state").status == 200
