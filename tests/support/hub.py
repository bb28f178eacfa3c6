"""A stand-in for the Hugging Face hub on this machine: what its real client calls for datasets and models, kept in memory.

Objects of large files are kept by their sha256 before any commit names them, as the hub does, so that a repeated upload
sends only what is missing. What the hub would refuse is refused: no token, a card with an unknown licence, a commit of an
object that was never uploaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN, OWNER = "hf_" + "t" * 30, "tester"
LARGE = {".parquet", ".tar", ".jpg", ".png", ".safetensors"}
LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc0-1.0", "other", "unknown"}
_API = re.compile(
    r"/api/(datasets|models)/([\w.-]+/[\w.-]+)(?:/(preupload|commit|revision|tree|paths-info)/([^/]+)(?:/(.*))?)?"
)
_RESOLVE = re.compile(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
_BATCH = re.compile(r"/(?:datasets/)?[\w.-]+/[\w.-]+\.git/info/lfs/objects/batch")
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Repository:
    """Files by path, of each commit by its id; the last is main."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    is_private: bool = False

    def __post_init__(self) -> None:
        self.commit({})

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit(self, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[oid] = files
        return oid

    def files(self, revision: str) -> dict[str, bytes] | None:
        return self.commits.get(self.head if revision == "main" else revision)


@dataclass
class Hub:
    """`uploads`: sha256 of each object that was sent, in order. `uploads_left`: after so many no more is taken."""

    url: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    uploads_left: int = 10**9

    def put(self, name: str, files: dict[str, bytes], kind: str = "datasets") -> Repository:
        """A repository with these files."""
        found = self.repositories.setdefault((kind, name), Repository())
        found.commit(files)
        return found

    def environment(self) -> dict[str, str]:
        """Of a process whose hub this is."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            # the protocol of its storage is another server's
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


@contextmanager
def hub_server() -> Iterator[Hub]:
    """An empty hub. Processes have it by `environment`, this one by `reached_here`."""
    hub = Hub()
    handler = type("HubHandler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def reached_here(hub: Hub, cache: str) -> Iterator[None]:
    """The hub's client of this process, which read its environment when it was imported, has this hub and an empty cache."""
    import huggingface_hub
    from huggingface_hub import HfFileSystem, constants

    changed = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": cache,
    }
    before = {name: getattr(constants, name) for name in changed}
    token = os.environ.get("HF_TOKEN")
    for name, value in changed.items():
        setattr(constants, name, value)
    os.environ["HF_TOKEN"] = TOKEN
    HfFileSystem.clear_instance_cache()
    huggingface_hub.close_session()  # a session may know the network as shut
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(constants, name, value)
        os.environ.pop("HF_TOKEN")
        if token is not None:
            os.environ["HF_TOKEN"] = token
        HfFileSystem.clear_instance_cache()
        huggingface_hub.close_session()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._route(b"")

    def do_HEAD(self) -> None:
        self._route(b"")

    def do_POST(self) -> None:
        self._route(self._body())

    def do_PUT(self) -> None:
        self._route(self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _route(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        is_change = self.command in ("POST", "PUT") and not path.startswith("/objects/")
        if is_change and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json(401, {"error": "Invalid username or password."})
        if path == "/api/whoami-v2":
            return self._json(200, {"name": OWNER, "type": "user", "orgs": [], "auth": {}})
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.startswith("/objects/"):
            return self._object(path.rpartition("/")[2], body)
        if _BATCH.fullmatch(path):
            return self._batch(json.loads(body))
        if found := _API.fullmatch(path):
            return self._api(found, query, body)
        if found := _RESOLVE.fullmatch(path):
            return self._resolve(found)
        self._json(404, {"error": f"no such place: {path}"})

    def _validate(self, card: str) -> None:
        header = yaml.safe_load(card.split("---\n", 2)[1]) if card.startswith("---\n") else {}
        errors = []
        if "license" in header and header["license"] not in LICENCES:
            errors.append({"message": f'"license" must be one of {sorted(LICENCES)}'})
        self._json(400 if errors else 200, {"errors": errors, "warnings": []})

    def _create(self, asked: dict[str, Any]) -> None:
        kind = f"{asked.get('type') or 'model'}s"
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{'datasets/' * (kind == 'datasets')}{name}"}
        if (kind, name) in self.hub.repositories:
            return self._json(409, {"error": "You already created this repo"} | url)
        self.hub.put(name, {}, kind).is_private = asked.get("visibility") == "private"
        self._json(200, url)

    def _object(self, sha256: str, body: bytes) -> None:
        if self.hub.uploads_left <= 0:
            return self._json(403, {"error": "You have exceeded your storage quota"})
        self.hub.uploads_left -= 1
        if hashlib.sha256(body).hexdigest() != sha256:
            return self._json(400, {"error": "other bytes than announced"})
        self.hub.uploads.append(sha256)
        self.hub.objects[sha256] = body
        self._json(200, {})

    def _batch(self, asked: dict[str, Any]) -> None:
        told = []
        for one in asked["objects"]:
            href = {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}"}}
            is_there = one["oid"] in self.hub.objects
            told.append(
                {"oid": one["oid"], "size": one["size"]} | ({} if is_there else {"actions": href})
            )
        self._json(200, {"transfer": "basic", "objects": told})

    def _api(self, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> None:
        kind, name, verb, revision, path = found.groups()
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            return self._missing("RepoNotFound")
        files = repository.files(revision or "main")
        if files is None:
            return self._missing("RevisionNotFound")
        if verb == "preupload":
            return self._json(
                200, {"files": [_mode(one, files) for one in json.loads(body)["files"]]}
            )
        if verb == "commit":
            return self._commit(
                repository, f"{'datasets/' * (kind == 'datasets')}{name}", body.decode()
            )
        if verb == "tree":
            is_whole = query.get("recursive", ["False"])[0].lower() in ("true", "1")
            listed = _tree(files, path or "", is_whole=is_whole)
            return self._json(200, listed) if listed or not path else self._missing("EntryNotFound")
        if verb == "paths-info":
            return self._json(200, _paths_info(files, _paths(body.decode())))
        sha = repository.head if revision in (None, "main") else revision
        told = {
            "_id": "0",
            "id": name,
            "sha": sha,
            "private": repository.is_private,
            "gated": False,
            "disabled": False,
        }
        dates = {"lastModified": DATE, "createdAt": DATE, "downloads": 0, "likes": 0, "tags": []}
        self._json(200, told | dates | {"siblings": [{"rfilename": one} for one in sorted(files)]})

    def _commit(self, repository: Repository, place: str, text: str) -> None:
        lines = [json.loads(line) for line in text.splitlines() if line]
        files = dict(repository.commits[repository.head])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self._json(400, {"error": f"{value['path']}: was not uploaded"})
                files[value["path"]] = self.hub.objects[value["oid"]]
        oid = repository.commit(files)
        self._json(
            200,
            {
                "success": True,
                "commitOid": oid,
                "commitUrl": f"{self.hub.url}/{place}/commit/{oid}",
            },
        )

    def _resolve(self, found: re.Match[str]) -> None:
        prefix, name, revision, path = found.groups()
        repository = self.hub.repositories.get(("datasets" if prefix else "models", name))
        if repository is None:
            return self._missing("RepoNotFound")
        files = repository.files(revision)
        if files is None or path not in files:
            return self._missing("EntryNotFound" if files is not None else "RevisionNotFound")
        data = files[path]
        headers = {
            "ETag": f'"{_oid(path, data)}"',
            "X-Repo-Commit": repository.head if revision == "main" else revision,
            "Accept-Ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self._answer(200, data, headers)
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._answer(206, data[first : last + 1], headers)

    def _missing(self, code: str) -> None:
        self._answer(404, json.dumps({"error": code}).encode(), {"X-Error-Code": code})

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _is_large(path: str) -> bool:
    return PurePosixPath(path).suffix in LARGE


def _oid(path: str, data: bytes) -> str:
    """sha256 of a large file, git's name of the blob of another."""
    if _is_large(path):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _mode(one: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
    path = one["path"]
    told = {
        "path": path,
        "uploadMode": "lfs" if _is_large(path) else "regular",
        "shouldIgnore": False,
    }
    return told | ({"oid": _oid(path, files[path])} if path in files else {})


def _entry(path: str, data: bytes) -> dict[str, Any]:
    told: dict[str, Any] = {
        "type": "file",
        "path": path,
        "size": len(data),
        "oid": _oid(path, data),
    }
    if _is_large(path):
        told["lfs"] = {"oid": told["oid"], "size": len(data), "pointerSize": 134}
    return told | {"lastCommit": {"id": "0" * 40, "title": "t", "date": DATE}}


def _folder(path: str) -> dict[str, Any]:
    last = {"id": "0" * 40, "title": "t", "date": DATE}
    return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0, "lastCommit": last}


def _tree(files: dict[str, bytes], within: str, *, is_whole: bool) -> list[dict[str, Any]]:
    start = f"{within.strip('/')}/" if within.strip("/") else ""
    listed, folders = [], set[str]()
    for path, data in sorted(files.items()):
        if not path.startswith(start):
            continue
        above = [str(one) for one in PurePosixPath(path).parents][:-1]
        folders.update(one for one in above if one.startswith(start))
        if is_whole or "/" not in path[len(start) :]:
            listed.append(_entry(path, data))
    kept = (one for one in sorted(folders) if is_whole or "/" not in one[len(start) :])
    return [*map(_folder, kept), *listed]


def _paths(body: str) -> list[str]:
    if body.startswith("{"):
        return list(json.loads(body)["paths"])
    return parse_qs(body).get("paths", [])


def _paths_info(files: dict[str, bytes], paths: list[str]) -> list[dict[str, Any]]:
    found = []
    for path in (one.strip("/") for one in paths):
        if path in files:
            found.append(_entry(path, files[path]))
        elif any(one.startswith(f"{path}/") for one in files):
            found.append(_folder(path))
    return found
