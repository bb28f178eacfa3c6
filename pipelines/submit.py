"""Runs a manifest as a job of a Ray cluster, follows its logs, and exits with the run's own exit code.

    python pipelines/submit.py MANIFEST --address http://head:8265 [--output DIR] [--set KEY=VALUE] [--workers N]

Manifest, inputs, output and caches must lie at the same absolute paths on all machines. The same command resumes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import time
from pathlib import Path

from stylebatch.errors import StylebatchError
from stylebatch.manifest import load_spec


def entrypoint(args: argparse.Namespace) -> str:
    """The cluster's command line, with absolute paths. Raises ManifestError for what is wrong already here."""
    spec = load_spec(args.manifest, args.overrides, output=args.output)
    manifest, output = Path(args.manifest).absolute(), _absolute(spec.output.path)
    words = [args.python, "-m", "stylebatch", "run", str(manifest), "--output", output]
    words += ["--engine", "ray", "--address", "auto"]
    words += ["--workers", str(args.workers)] if args.workers else []
    cache = [f"features.cache={_absolute(spec.features.cache)}"] if spec.features.cache else []
    words += [word for text in (*args.overrides, *cache) for word in ("--set", text)]
    return "exec " + shlex.join(words)


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())


async def follow(client, job: str) -> None:  # type: ignore[no-untyped-def]
    """Copy the job's output to ours until it ends."""
    async for text in client.tail_job_logs(job):
        print(text, end="", flush=True)


def submit(args: argparse.Namespace) -> int:
    """Submit, follow, and return the exit code: the run's, 128 + signal where one ended it, 143 for a stopped job."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when ray is imported
    from ray.job_submission import JobStatus, JobSubmissionClient

    command, job = entrypoint(args), ""
    hint = f"--address {args.address} {{job}}`"
    try:
        client = JobSubmissionClient(args.address)
        job = client.submit_job(entrypoint=command)
        print(f"Submitted {job}: {command.removeprefix('exec ')}", file=sys.stderr, flush=True)
        asyncio.run(follow(client, job))
        while not (info := client.get_job_info(job)).status.is_terminal():
            time.sleep(0.5)
    except KeyboardInterrupt:
        if job:
            print(f"stylebatch: {job} goes on. Follow: `ray job logs --follow {hint.format(job=job)}; "
                  f"stop: `ray job stop {hint.format(job=job)}", file=sys.stderr)  # fmt: skip
        return 130
    except Exception as error:  # noqa: BLE001 - Ray and aiohttp raise many kinds, all of them about the head
        state = f"lost {job}, which may still run" if job else "nothing was submitted"
        print(f"stylebatch: --address {args.address}: {state}: {error}\nNext: check that the head's dashboard is "
              "reachable at this http address (`ray status` there), and for 401 or 403 put its token in RAY_AUTH_TOKEN "
              "or its file in RAY_AUTH_TOKEN_PATH; the same command resumes", file=sys.stderr)  # fmt: skip
        return 1
    code = info.driver_exit_code
    if code is None:
        code = {JobStatus.SUCCEEDED: 0, JobStatus.STOPPED: 143}.get(info.status, 1)
    if code:
        print(f"stylebatch: {job} {info.status.value}: {info.message}", file=sys.stderr)
    return int(code) if code >= 0 else 128 - int(code)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run a manifest as a job of a Ray cluster.")
    parser.add_argument("manifest", metavar="MANIFEST")
    parser.add_argument("--address", required=True, help="http://HEAD:8265, the head's dashboard")
    parser.add_argument("--output", metavar="DIR", help="as of `stylebatch run`")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="default: as many as there is room for"
    )
    parser.add_argument("--python", default="python", help="the cluster's Python with stylebatch")
    try:
        return submit(parser.parse_args())
    except StylebatchError as error:
        print(f"stylebatch: {error}\nThe manifest and its inputs must be visible here and on all nodes, at the same "
              "absolute paths (shared storage).", file=sys.stderr)  # fmt: skip
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
