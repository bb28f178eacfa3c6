"""An S3 server on this machine (moto's), and a proxy in front of it that fails as networks and stores do."""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

from stylebatch.folder import Folder, RemoteFolder

BUCKET = "bucket"


@contextmanager
def s3_server() -> Iterator[str]:
    """URL of a server with an empty bucket; this process, and those it starts, have it as their S3 meanwhile."""
    import requests
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        # servers of one process share their objects
        requests.post(f"{url}/moto-api/reset", timeout=60).raise_for_status()
        with reached_at(url):
            store(f"s3://{BUCKET}").filesystem.call_s3("create_bucket", Bucket=BUCKET)
            yield url
    finally:
        server.stop()


@contextmanager
def reached_at(url: str) -> Iterator[None]:
    """S3 is at `url` for this process, and for those it starts."""
    from s3fs import S3FileSystem

    set_here = {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "hunter2Xq-of-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    before = {name: os.environ.get(name) for name in set_here}
    os.environ.update(set_here)
    S3FileSystem.clear_instance_cache()
    try:
        yield
    finally:
        S3FileSystem.clear_instance_cache()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def short_pauses() -> Iterator[None]:
    """Requests are repeated as always, after a hundredth of the time: by botocore, and by s3fs around it."""
    import s3fs.core
    from botocore.retries.standard import ExponentialBackoff

    usual = ExponentialBackoff.delay_amount
    ExponentialBackoff.delay_amount = lambda self, context: usual(self, context) / 100
    quick = {**vars(asyncio), "sleep": lambda seconds: asyncio.sleep(seconds / 100)}
    s3fs.core.asyncio = SimpleNamespace(**quick)
    try:
        yield
    finally:
        s3fs.core.asyncio = asyncio
        ExponentialBackoff.delay_amount = usual


def store(address: str) -> Any:
    """What keeps the files of an address."""
    folder = Folder.at(address)
    assert isinstance(folder, RemoteFolder)
    return folder.store


def contents(address: str) -> dict[str, bytes]:
    """Every object beneath an address, by name."""
    folder = Folder.at(address)
    return {name: folder.read(name) for name, _ in folder.find()}


@dataclass
class Request:
    """One of a client."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    number: int
    was_damaged: bool = False


Fault = Callable[[Request], str]
"""What becomes of a request: `pass`, or one of those in `_Proxied`."""


def unreliable(request: Request) -> str:
    """Every eighth request fails, in one of all ways."""
    draw = random.Random(request.number)
    if draw.random() > 0.125:
        return "pass"
    more = ("cut",) if request.method == "GET" else ()
    # The lock is read while its heartbeat is written: what this server kept damaged would stand until the next beat.
    # An upload that comes damaged twice ends a run.
    if request.method == "GET" or not (request.was_damaged or ".run.lock" in request.path):
        more = (*more, "damaged")
    return draw.choice(("500", "503", "reset", "lost", *more))


def without_damaged_uploads(request: Request) -> str:
    """As `unreliable`, but what is sent arrives as it was."""
    found = unreliable(request)
    return "lost" if found == "damaged" and request.method != "GET" else found


@dataclass
class Proxy:
    """Passes requests on to a server, as `fault` says; `seen`: method, path and what became of each. Uploads go one by one."""

    url: str
    fault: Fault = lambda _: "pass"
    slow_s: float = 2.0
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    uploading: threading.Lock = field(default_factory=threading.Lock)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, method: str, ending: str = "") -> int:
        """How many requests of that method there were about such a path."""
        return sum(m == method and p.split("?")[0].endswith(ending) for m, p, _ in self.seen)

    def decide(self, method: str, path: str, headers: dict[str, str], body: bytes) -> str:
        with self._lock:
            was_damaged = (method, path, "damaged") in self.seen
            action = self.fault(Request(method, path, headers, body, len(self.seen), was_damaged))
            self.seen.append((method, path, action))
        return action


@contextmanager
def proxied(url: str, fault: Fault = lambda _: "pass") -> Iterator[Proxy]:
    """A proxy in front of `url`; this process, and those it starts, go through it."""
    proxy = Proxy(url, fault)
    handler = type("Handler", (_Proxied,), {"proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with reached_at(f"http://127.0.0.1:{server.server_port}"):
            yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Proxied(BaseHTTPRequestHandler):
    """`503`, `500`: refused; `reset`: cut off before the store hears of it; `lost`: done, and cut off before the answer;

    `slow`: done, with an answer that comes too late; `cut`: half of the answer's body; `damaged`: other bodies go there and back.
    """

    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = dict(self.headers.items())
        action = self.proxy.decide(self.command, self.path, headers, body)
        if action in ("500", "503"):
            code = {"500": "InternalError", "503": "SlowDown"}[action]
            text = (
                f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>later</Message></Error>"
            )
            self._answer(int(action), [("Content-Type", "application/xml")], text.encode())
            return
        if action == "reset":
            self._cut_off()
            return
        if action == "damaged":
            body = _changed(body, 1)
        with self.proxy.uploading if self.command == "PUT" else nullcontext():
            status, answered, data = self._passed_on(headers, body)
        if action == "lost":
            self._cut_off()
            return
        if action == "slow":
            time.sleep(self.proxy.slow_s)
        if action == "damaged":
            data = _changed(data, 2)  # else it would mend what came damaged
        self._answer(status, answered, data, half=action == "cut")
        if action == "cut":
            self._cut_off()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def _passed_on(
        self, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        host, port = self.proxy.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            kept = {k: v for k, v in headers.items() if k.lower() not in ("expect", "connection")}
            connection.request(self.command, self.path, body, kept)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, *, half: bool = False
    ) -> None:
        self.send_response_only(status)
        has_length = False
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
                has_length |= name.lower() == "content-length"
        if not has_length:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if half else data)

    def _cut_off(self) -> None:
        """A reset, not an orderly end."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def _changed(data: bytes, bit: int) -> bytes:
    return data[:-1] + bytes([data[-1] ^ bit]) if data else data
