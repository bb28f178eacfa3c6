"""Files of S3 and of stores that speak its protocol; `connect` gives the store of any address.

An upload is one object that appears whole under its final name, so nothing has a temporary name there. botocore
repeats a request that met 5xx, throttling, a reset or a timeout, with growing pauses; s3fs repeats those whose connection
failed. A request may thus take effect twice, or take effect although its answer was lost: uploads carry the same bytes each
time, and a condition that fails is checked against who made the object.
"""

from __future__ import annotations

import errno
import hashlib
import mimetypes
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from stylebatch.local_files import Facts
from stylebatch.remote_files import Store, facts_of, require_size

S3_PROTOCOLS = ("s3", "s3a")
S3_CONFIG: dict[str, Any] = {
    "retries": {"mode": "standard", "max_attempts": 7},
    "connect_timeout": 10,
    "read_timeout": 60,
    "max_pool_connections": 32,
}
"""For botocore: about 30 seconds of pauses in all, and a minute for a stalled connection. What fsspec's configuration says goes first."""
PAGE = 1000
"""Objects that one request lists at most."""
PART_BYTES = 32 << 20
PARTS_AT_ONCE = 4
MARK = "stylebatch-write"
"""Metadata of an object that was written on a condition: which write made it."""
_REFUSED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey", "404"}


@dataclass(frozen=True)
class S3Store(Store):
    """S3 and stores that speak its protocol. Buckets are never made: a misspelt one is an error."""

    def facts(self, path: str) -> Facts:
        head = self._head(path)
        return facts_of(head | {"size": head["ContentLength"], "type": "file"})

    def is_folder(self, path: str) -> bool:
        return next(self._pages(path, "", "/", MaxKeys=1), None) is not None

    def ls(self, folder: str, start: str = "") -> Iterator[tuple[str, Facts]]:
        return self._pages(folder, start, "/")

    def page(self, folder: str) -> list[tuple[str, Facts]] | None:
        found = list(islice(self._pages(folder, "", "/"), PAGE))
        return found if len(found) < PAGE else None

    def find(self, folder: str) -> Iterator[tuple[str, Facts]]:
        return self._pages(folder, "", "")

    def read(self, path: str, most_bytes: int) -> bytes:
        return self.part(path, 0, most_bytes + 1)

    def part(self, path: str, offset: int, count: int) -> bytes:
        try:
            return super().part(path, offset, count)
        except OSError as error:
            # the object ends before: an empty one has no first byte
            if _code(error) in ("InvalidRange", "416"):
                return b""
            self._require_bucket(error, path)
            raise

    def open(self, path: str) -> IO[bytes]:
        file: IO[bytes] = self.filesystem.open(path, "rb")
        return file

    def write(self, path: str, data: bytes) -> None:
        for _ in range(2):
            answer = self._put(path, data)
            if self._is_whole(path, answer, hashlib.md5(data, usedforsecurity=False).hexdigest()):
                return
        raise OSError(errno.EIO, "the store holds other bytes than were sent, twice")

    def upload(self, path: str, local: Path) -> None:
        size = local.stat().st_size
        if size < 2 * PART_BYTES:
            self.write(path, local.read_bytes())
        else:
            self._upload_parts(path, local)
        require_size(self.facts(path), size)

    def _upload_parts(self, path: str, local: Path) -> None:
        for _ in range(2):
            self.filesystem.put_file(
                str(local), path, chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )
            if self._is_whole(path, self._head(path), *_etags(local)):
                return
        raise OSError(errno.EIO, "the store holds other bytes than were sent, twice")

    def create(self, path: str, data: bytes) -> bool:
        try:
            self._head(path)  # for stores that pass over a condition
        except FileNotFoundError:
            return self._put_if(path, data, IfNoneMatch="*")
        return False

    def swap(self, path: str, is_former: Callable[[], bool], data: bytes) -> bool | None:
        try:
            former = self._head(path)["ETag"]  # before the look, so that a change after it is seen
        except FileNotFoundError:
            return False
        return is_former() and self._put_if(path, data, IfMatch=former)

    def rename(self, path: str, new: str) -> None:
        self._head(path)
        self.filesystem.cp_file(path, new)
        self.filesystem.rm_file(path)

    def drop_unfinished(self, folder: str, is_ours: Callable[[str], bool]) -> None:
        bucket, key, _ = self.filesystem.split_path(f"{folder}/")
        listed = self._call("list_multipart_uploads", folder, Bucket=bucket, Prefix=key)
        for upload in listed.get("Uploads", []):
            path = f"{bucket}/{upload['Key']}"
            if is_ours(path):
                self._call(
                    "abort_multipart_upload",
                    path,
                    Bucket=bucket,
                    Key=upload["Key"],
                    UploadId=upload["UploadId"],
                )

    def _pages(
        self, folder: str, start: str, delimiter: str, **more: Any
    ) -> Iterator[tuple[str, Facts]]:
        """Objects and folders beneath `folder` whose names begin with `start`, in the store's order."""
        bucket, key, _ = self.filesystem.split_path(folder)
        above = f"{key}/" if key else ""
        request = {"Bucket": bucket, "Prefix": above + start, "Delimiter": delimiter, **more}
        while True:
            page = self._call("list_objects_v2", folder, **request)
            for found in page.get("Contents", []):
                if found["Key"] != above and not found["Key"].endswith("/"):  # marks of folders
                    facts = facts_of(found | {"size": found["Size"], "type": "file"})
                    yield f"{bucket}/{found['Key']}", facts
            for found in page.get("CommonPrefixes", []):
                yield f"{bucket}/{found['Prefix']}".rstrip("/"), Facts(0, 0.0, is_file=False)
            if not page.get("IsTruncated") or "MaxKeys" in more:
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _head(self, path: str) -> dict[str, Any]:
        bucket, key, _ = self.filesystem.split_path(path)
        if not key:
            raise FileNotFoundError(errno.ENOENT, "a bucket is no object", path)
        return self._call("head_object", path, Bucket=bucket, Key=key)

    def _put(self, path: str, data: bytes, **more: Any) -> dict[str, Any]:
        bucket, key, _ = self.filesystem.split_path(path)
        kind, _ = mimetypes.guess_type(key)
        kinds = {} if kind is None else {"ContentType": kind}
        return self._call("put_object", path, Bucket=bucket, Key=key, Body=data, **kinds, **more)

    def _put_if(self, path: str, data: bytes, **condition: str) -> bool:
        """Whether the condition held. A first attempt may have succeeded without an answer: then the object has our mark."""
        mark = secrets.token_hex(8)
        try:
            self._put(path, data, Metadata={MARK: mark}, **condition)
        except Exception as error:
            if not isinstance(error, FileExistsError) and _code(error) not in _REFUSED:
                raise
            try:
                found = self._head(path).get("Metadata", {})
            except FileNotFoundError:
                return False
            return bool(found.get(MARK) == mark)
        return True

    def _is_whole(self, path: str, answer: dict[str, Any], *etags: str) -> bool:
        """Whether the object has the bytes whose MD5 is the last of `etags`.

        By its ETag; read back where that is another number, as with keys of AWS KMS.
        """
        if answer.get("ETag", "").strip('"') in etags:
            return True
        from botocore.exceptions import FlexibleChecksumError

        digest = hashlib.md5(usedforsecurity=False)
        try:
            with self.open(path) as file:
                while data := file.read(PART_BYTES):
                    digest.update(data)
        except FlexibleChecksumError:
            return False
        return digest.hexdigest() == etags[-1]

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self.filesystem.call_s3(method, **request)
        except OSError as error:
            self._require_bucket(error, path)
            raise
        return answer

    def _require_bucket(self, error: OSError, path: str) -> None:
        """Raise OSError where the bucket is missing, which is no missing file."""
        if _code(error) == "NoSuchBucket":
            bucket = self.filesystem.split_path(path)[0]
            raise OSError(errno.ENXIO, f"there is no bucket {bucket}") from error


def connect(address: str) -> tuple[Store, str]:
    """The store of an address, and the path in it; nothing is asked. Raises ImportError or ValueError for an unknown one."""
    import fsspec  # takes as long to import as all the rest of a start

    protocol = fsspec.utils.get_protocol(address)
    options: dict[str, Any] = {}
    if protocol in S3_PROTOCOLS:
        given = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
        options = {"use_listings_cache": False, "config_kwargs": S3_CONFIG | given}
    filesystem, path = fsspec.core.url_to_fs(address, **options)
    if protocol not in S3_PROTOCOLS:
        return Store(filesystem), path.rstrip("/")
    _repeat_damaged_answers()
    return S3Store(filesystem), path.rstrip("/")


def _repeat_damaged_answers() -> None:
    """s3fs asks again where an answer's body does not fit its checksum."""
    import s3fs.core
    from botocore.exceptions import FlexibleChecksumError

    if FlexibleChecksumError not in s3fs.core.S3_RETRYABLE_ERRORS:
        s3fs.core.add_retryable_error(FlexibleChecksumError)


def _code(error: BaseException) -> str:
    """What S3 calls an error, "" where it comes from elsewhere."""
    found: BaseException | None = error
    while found is not None:
        answer = getattr(found, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", ""))
        found = found.__cause__
    return ""


def _etags(local: Path) -> tuple[str, str]:
    """The ETag of a file that is uploaded in parts, and the MD5 of the whole."""
    whole, parts = hashlib.md5(usedforsecurity=False), hashlib.md5(usedforsecurity=False)
    count = 0
    with local.open("rb") as file:
        while data := file.read(PART_BYTES):
            whole.update(data)
            parts.update(hashlib.md5(data, usedforsecurity=False).digest())
            count += 1
    return f"{parts.hexdigest()}-{count}", whole.hexdigest()
