"""A manifest's run as a job of a Ray cluster: submitted over HTTP to the head's dashboard, and followed to its end."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from stylebatch.engine.ray_here import require_ray
from stylebatch.errors import ManifestError, StylebatchError

ACCEPTED = "http://HOST:8265, the head's dashboard"
CONNECT_S = 10.0
POLL_S = 0.5
_LONGEST = 300


class SubmissionError(StylebatchError):
    """The head cannot be reached, refuses the job, or was lost."""


class Job:
    """A job of the cluster at `address`. `name`: the cluster's, empty before it is submitted."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.name = ""
        url = urlsplit(address)
        try:
            host, port = url.hostname, url.port or (443 if url.scheme == "https" else 80)
        except ValueError as error:
            raise ManifestError(
                f"--address: found {address!r} ({error}); accepted: {ACCEPTED}"
            ) from None
        if url.scheme not in ("http", "https") or not host:
            raise ManifestError(f"--address: found {address!r}; accepted: {ACCEPTED}")
        self._host, self._port, self._scheme = host, port, url.scheme

    def submit(self, command: str) -> None:
        """Hand `command` to the cluster. Raises SubmissionError where nothing was submitted, ManifestError without Ray here."""
        require_ray("submit", "`ray job submit` where it is installed")
        if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when ray is imported
        try:
            # behind a proxy the port may not be reachable directly
            if self._scheme not in getproxies():
                socket.create_connection((self._host, self._port), CONNECT_S).close()
            from ray.job_submission import JobSubmissionClient

            self._client = JobSubmissionClient(self.address)
            self.name = self._client.submit_job(entrypoint=command)
        except Exception as error:  # Ray and aiohttp raise many kinds, all of them about the head
            raise self._lost("nothing was submitted", error) from error

    def follow(self, show: Callable[[str], None]) -> tuple[int, str]:
        """Pass its output on until it ends; the exit code and the reason where it is not 0.

        The code is the run's own, 128 + signal where one ended it, 143 for a job that was stopped.
        """
        try:
            asyncio.run(self._pass_on(show))
            # the log stream ends a moment before the state does, and also when the connection is lost
            while not (info := self._client.get_job_info(self.name)).status.is_terminal():
                time.sleep(POLL_S)
        except BrokenPipeError:
            raise
        except Exception as error:
            raise self._lost(f"lost {self.name}, which may still run", error) from error
        code = info.driver_exit_code
        if code is None:
            code = {"SUCCEEDED": 0, "STOPPED": 143}.get(info.status.value, 1)
        reason = f"{self.name} {info.status.value}: {info.message}" if code else ""
        return (int(code) if code >= 0 else 128 - int(code)), reason

    async def _pass_on(self, show: Callable[[str], None]) -> None:
        client: Any = self._client
        async for text in client.tail_job_logs(self.name):
            show(text)

    def _lost(self, state: str, error: Exception) -> SubmissionError:
        text = " ".join(str(error).split()) or type(error).__name__
        return SubmissionError(
            f"--address {self.address}: {state}: {text[:_LONGEST]}\nNext: check that the head's dashboard is "
            "reachable at this http address (`ray status` there), and for 401 or 403 put its token in RAY_AUTH_TOKEN "
            "or its file in RAY_AUTH_TOKEN_PATH; the same command resumes"
        )
