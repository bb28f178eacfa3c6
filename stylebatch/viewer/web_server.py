"""Serves the viewer on 127.0.0.1: who may ask, and what goes along with an answer.

1. The Host header names this machine, or the request is refused: a page of the network whose name was turned to 127.0.0.1
   would else be answered (DNS rebinding).
2. The address that is printed holds a random token; its first visit sets a cookie, and without that nothing is answered.
   Cookies are shared by all ports of a host: the cookie's name has the port.
3. A request that a page of another origin caused is refused.
"""

from __future__ import annotations

import json
import re
import secrets
import select
import socket
import sys
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from stylebatch.errors import ManifestError
from stylebatch.masking import safe_text
from stylebatch.viewer.answers import Answer, Answers, Refused, Request

HOST = "127.0.0.1"
OPEN = "/open/"
MOST_BODY = 1 << 20
MOST_FIELDS = 16
IDLE_S = 60
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class WebServer(ThreadingHTTPServer):
    """A server of one output; `url` is the address to visit. Raises ManifestError for a port that is taken."""

    daemon_threads = True
    # threads may wait for a store; nobody waits for them at the end
    block_on_close = False

    def __init__(self, answers: Answers, port: int) -> None:
        self.answers = answers
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ManifestError(
                f"--port: {port}: {reason}; accepted: a free port. Next: leave --port out, and one is chosen"
            ) from None

    @property
    def cookie(self) -> str:
        return f"stylebatch-{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}{OPEN}{self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Asks `answers` for what those may see that have the token."""

    server: WebServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "stylebatch", ""
    timeout: ClassVar[int] = IDLE_S  # type: ignore[assignment]

    def do_GET(self) -> None:
        self._answer(has_body=False)

    def do_POST(self) -> None:
        self._answer(has_body=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nobody's concern."""

    def _answer(self, *, has_body: bool) -> None:
        try:
            answer = self._answered(has_body=has_body)
        except Refused as refusal:
            answer = _refusal(refusal.status, str(refusal))
        except OSError as error:
            answer = _refusal(500, str(error))
        except Exception as error:  # noqa: BLE001 - one bad request must not end the viewer
            answer = _refusal(500, f"{type(error).__name__}: {error}")
        if answer.status >= 400:
            # what was sent and not read would be taken for the next request
            self.close_connection = True
        self._send(answer)

    def _answered(self, *, has_body: bool) -> Answer:
        self._require_host()
        try:
            parts = urlsplit(self.path)
        except ValueError:
            raise Refused(400, "accepted: an address of the viewer") from None
        if parts.path.startswith(OPEN) and not has_body:
            return self._opened(parts.path.removeprefix(OPEN))
        self._require_token()
        self._require_same_origin(has_body=has_body)
        try:
            query = dict(parse_qsl(parts.query, max_num_fields=MOST_FIELDS))
        except ValueError:
            raise Refused(400, f"accepted: up to {MOST_FIELDS} parameters") from None
        request = Request(parts.path, query, self._body() if has_body else b"", self._is_wanted)
        return self.server.answers.post(request) if has_body else self.server.answers.get(request)

    def _opened(self, token: str) -> Answer:
        if not _is_same(token, self.server.token):
            raise Refused(
                403, "this address is not that of the viewer; open the one that it printed"
            )
        cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
        return Answer(303, "text/plain", b"", headers={"Location": "/", "Set-Cookie": cookie})

    def _require_host(self) -> None:
        hosts = self.headers.get_all("Host", [])
        # the port may be another one: that of a tunnel
        if len(hosts) != 1 or re.fullmatch(r"(127\.0\.0\.1|localhost)(:\d+)?", hosts[0]) is None:
            raise Refused(403, f"accepted: the host {HOST}")

    def _require_token(self) -> None:
        try:
            sent = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            sent = None
        if sent is None or not _is_same(sent.value, self.server.token):
            raise Refused(403, "open the address that `stylebatch view` printed: it holds a token")

    def _require_same_origin(self, *, has_body: bool) -> None:
        site, origin = self.headers.get("Sec-Fetch-Site"), self.headers.get("Origin")
        # `none`: typed by the user
        is_foreign = site not in (None, "same-origin", "none")
        if origin is not None or has_body:
            is_foreign |= origin != f"http://{self.headers['Host']}"
        if is_foreign:
            raise Refused(403, "accepted: requests of the viewer's own page")

    def _body(self) -> bytes:
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "accepted: application/json")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MOST_BODY:
            raise Refused(413, f"accepted: a body of up to {MOST_BODY} bytes")
        return self.rfile.read(int(length))

    def _is_wanted(self) -> bool:
        """Whether the browser still waits: one that gave a picture up has closed the connection."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        try:
            return not poll.poll(0) or len(self.connection.recv(1, socket.MSG_PEEK)) > 0
        except OSError:
            return False

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        keeping = "private, max-age=3600, immutable" if answer.kept else "no-store"
        told: Mapping[str, str] = {
            **HEADERS,
            **answer.headers,
            "Cache-Control": keeping,
            "Content-Type": answer.type,
            "Content-Length": str(len(answer.data)),
        }
        for name, text in told.items():
            self.send_header(name, text)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.data)


def _is_same(one: str, other: str) -> bool:
    # bytes: texts beyond ASCII would be an error
    return secrets.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _refusal(status: int, reason: str) -> Answer:
    data = json.dumps({"error": safe_text(reason)}).encode()
    return Answer(status, "application/json", data)
