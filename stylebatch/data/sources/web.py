"""Reads pictures from addresses of the web, of hosts that a manifest names: in bounded time and size, asked again where a server is busy.

A table from elsewhere could else make this machine ask any server, also those of its own network. Redirections are followed to
named hosts alone.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from typing import IO, Any
from urllib.parse import urlsplit

from stylebatch.errors import SampleError

MAX_BYTES = 64 << 20
MAX_S = 60.0
"""For one picture, with all attempts."""
ATTEMPTS = 4
PAUSE_S = 0.5
"""Before the second attempt; doubled for each further one."""
CHUNK = 1 << 16
BUSY = frozenset((408, 425, 429, 500, 502, 503, 504))
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


def is_web(address: str) -> bool:
    """Whether it begins with http:// or https://."""
    return address[:8].lower().startswith(("http://", "https://"))


def web_fault(address: str, hosts: Collection[str]) -> str | None:
    """Why an address is not asked."""
    try:
        found = urlsplit(address)
        name, port = (found.hostname or "").lower(), found.port
    except ValueError:
        return "not an address"
    if found.username is not None or found.password is not None:
        return "holds credentials; accepted: an address without"
    if found.scheme.lower() != "https" and name not in _LOOPBACK:
        return "accepted: https://, since anybody on the way may change what http:// brings"
    for host in hosts:
        wanted, _, wanted_port = host.lower().partition(":")
        is_below = wanted.startswith("*.") and name.endswith(wanted[1:])
        if (name == wanted or is_below) and wanted_port in ("", str(port)):
            return None
    return f"an address of {name or 'no host'}, which `web_hosts` does not name"


def fetch(address: str, hosts: Collection[str]) -> bytes:
    """The bytes at an address. Raises SampleError: `missing`, `too_large` or `unreachable`."""
    until = time.monotonic() + MAX_S
    for attempt in range(ATTEMPTS):
        try:
            return _read(address, hosts, until)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answers {error.code} ({error.reason})"
            if error.code not in BUSY:
                raise SampleError("missing", reason) from None
        except (OSError, http.client.HTTPException) as error:
            reason = f"the server does not answer ({error or type(error).__name__})"
        pause = PAUSE_S * 2**attempt
        if attempt + 1 == ATTEMPTS or time.monotonic() + pause > until:
            break
        time.sleep(pause)
    raise SampleError("unreachable", f"{reason}, {attempt + 1} times")


def _read(address: str, hosts: Collection[str], until: float) -> bytes:
    fault = web_fault(address, hosts)
    if fault is not None:
        raise SampleError("missing", fault)
    request = urllib.request.Request(address, headers={"User-Agent": "stylebatch"})
    opener = urllib.request.build_opener(_Redirections(hosts))
    parts: list[bytes] = []
    size = 0
    with opener.open(request, timeout=max(0.1, until - time.monotonic())) as answer:
        while data := answer.read1(CHUNK):
            parts.append(data)
            size += len(data)
            if size > MAX_BYTES:
                raise SampleError("too_large", f"over {MAX_BYTES} bytes of the web")
            # A server that sends a byte a second never runs into the timeout of a read.
            if time.monotonic() > until:
                raise TimeoutError(f"over {MAX_S:.0f} s")
        length = answer.headers.get("Content-Length")
        if length is not None and length.isdigit() and size < int(length):
            raise ConnectionError(f"{size} bytes of {length}")
    return b"".join(parts)


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows them to named hosts alone."""

    def __init__(self, hosts: Collection[str]) -> None:
        self.hosts = hosts

    def redirect_request(
        self,
        req: Any,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> Any:
        fault = web_fault(newurl, self.hosts)
        if fault is not None:
            fp.close()
            raise SampleError("missing", f"is redirected to {fault}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
