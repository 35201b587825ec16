"""A bucket as a store: S3, or any server that speaks it.

    s3://bucket/prefix                                 AWS, or AWS_ENDPOINT_URL
    s3://bucket/prefix?endpoint=http://127.0.0.1:9000  another server; `&region=eu-west-1` if it
                                                       cares

How it keeps its word:
- `put_if_absent` is one PutObject with `If-None-Match: *`: 412 means that somebody was first, 409
  that two are racing, so ask again. Completing a multipart upload with a condition is not relied
  on; some servers ignore it.
- Every upload carries its MD5 and its SHA-256, of which the server checks those it knows, and the
  SHA-256 as metadata, which `facts` reads. What the server answers (its own SHA-256, or the MD5 as
  ETag) must be that of the bytes sent; where it tells neither, as with a key of one's own, the
  object is read back once.
- Above 16 MiB an object goes up in parts: it is invisible until complete, and a failed upload is
  aborted.

Not promised: objects above 5 GiB (a single copy request cannot move them).
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

from vidplat.errors import StoreError, UsageError, printable
from vidplat.storage.s3_bucket import AlreadyThere, Bucket
from vidplat.storage.stores import NotFound, ObjectFacts, checked_key, checked_prefix

MULTIPART_ABOVE_BYTES = 16 << 20
_PART_BYTES = 8 << 20
_READ_CHUNK_BYTES = 1 << 20
_MD5_BYTES = 16
_IMPATIENT_S, _READING_S = 4.0, 20.0
_MOST_HEADS = 200  # objects of one batch that are asked for one by one; of more, all are listed
_HEADS_AT_ONCE = 8


class S3Store:
    """Objects below the prefix of an s3:// URL. Threads may share it."""

    def __init__(self, url: str, *, patience_s: float = 60.0) -> None:
        self.url = url
        self._bucket = Bucket(url, patience_s=patience_s)
        self._prefix = f"{checked_prefix(self._bucket.path)}/" if self._bucket.path else ""

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        whole = self._key(key)
        many = len(data) > MULTIPART_ABOVE_BYTES
        has_arrived = (self._put_in_parts if many else self._put_whole)(whole, data, content_type)
        if not has_arrived and _sha256(self.get(key)) != _sha256(data):
            raise StoreError(f"{printable(self.uri(key))} has other content than was sent")

    def put_if_absent(self, key: str, data: bytes) -> bool:
        try:
            self._put_whole(self._key(key), data, "application/json", IfNoneMatch="*")
        except AlreadyThere:
            return False
        return True

    def get(self, key: str) -> bytes:
        data: bytes = self._bucket.read(self._key(key), lambda body: body.read())
        return data

    def facts(self, key: str, *, digest: bool = True) -> ObjectFacts | None:
        return self._facts(self._key(key))

    def sizes(self, keys: Collection[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        folders: defaultdict[str, set[str]] = defaultdict(set)
        for key in keys:
            folders["/".join(key.split("/")[:2])].add(key)  # batches/<batch>
        with ThreadPoolExecutor(_HEADS_AT_ONCE) as pool:
            for folder, some in folders.items():
                if len(some) > _MOST_HEADS:
                    sizes = dict(self._sizes_below(folder))
                    found |= {key: sizes[key] for key in some & sizes.keys()}
                    continue
                facts = zip(some, pool.map(self.facts, some), strict=True)
                found |= {key: each.size_bytes for key, each in facts if each is not None}
        return found

    def move(self, source: str, target: str) -> None:
        where = {"Bucket": self._bucket.name, "Key": self._key(source)}
        self._bucket.call("copy_object", self._key(target), CopySource=where)
        self.delete(source)

    def delete(self, key: str) -> None:
        with suppress(NotFound):
            self._bucket.call("delete_object", self._key(key))

    def list(self, prefix: str = "") -> Iterator[str]:
        return (key for key, _ in self._sizes_below(prefix))

    def uri(self, key: str) -> str:
        return f"s3://{self._bucket.name}/{self._key(key)}"

    def impatient(self) -> S3Store:
        return S3Store(self.url, patience_s=_IMPATIENT_S)

    def sweep_unfinished(self, prefix: str, older_than_s: float) -> int:
        newest_swept = datetime.now(UTC) - timedelta(seconds=older_than_s)
        removed = 0
        for page in self._bucket.pages("list_multipart_uploads", self._below(prefix)):
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] <= newest_swept:
                    self._bucket.abort_upload(upload["Key"], upload["UploadId"])
                    removed += 1
        return removed

    # --- whole keys of the bucket -----------------------------------------------------------------

    def _key(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _below(self, folder: str) -> str:
        return f"{self._key(folder)}/" if folder else self._prefix

    def _sizes_below(self, folder: str) -> Iterator[tuple[str, int]]:
        for page in self._bucket.pages("list_objects_v2", self._below(folder)):
            for found in page.get("Contents", ()):
                yield found["Key"].removeprefix(self._prefix), found["Size"]

    def _facts(self, key: str) -> ObjectFacts | None:
        try:
            head = self._bucket.call("head_object", key)
        except NotFound:
            return None
        sha256 = head["Metadata"].get("sha256")
        return ObjectFacts(head["ContentLength"], sha256, head["LastModified"].timestamp())

    def _put_whole(self, key: str, data: bytes, content_type: str, **condition: str) -> bool:
        """Whether the answer tells that all has arrived unharmed; else it says nothing of that."""
        about, digest = _about(data, content_type), _md5(data)
        sha256 = _base64(bytes.fromhex(about["Metadata"]["sha256"]))
        checks = {"ContentMD5": _base64(digest), "ChecksumSHA256": sha256}
        told = self._bucket.call(
            "put_object", key, len(data), Body=data, **checks, **about, **condition
        )
        return sha256 == told.get("ChecksumSHA256") or digest.hex() == _etag(told)

    def _put_in_parts(self, key: str, data: bytes, content_type: str) -> bool:
        """The same for an object of many parts."""
        call, about = self._bucket.call, _about(data, content_type)
        upload = call("create_multipart_upload", key, **about)["UploadId"]
        try:
            parts, digests = [], b""
            for number, start in enumerate(range(0, len(data), _PART_BYTES), start=1):
                part = data[start : start + _PART_BYTES]
                digests += _md5(part)
                which = {"UploadId": upload, "PartNumber": number}
                md5 = _base64(digests[-_MD5_BYTES:])
                done = call("upload_part", key, len(part), Body=part, ContentMD5=md5, **which)
                parts.append({"PartNumber": number, "ETag": done["ETag"]})
            whole = {"Parts": parts}
            told = call("complete_multipart_upload", key, UploadId=upload, MultipartUpload=whole)
        except NotFound as gone:
            # a completed upload answers "no such upload" when its first answer was lost: then the
            # object is there
            if self._facts(key) is None:
                raise StoreError(f"the upload of {printable(key)} vanished on the server") from gone
            return False
        except StoreError:
            self._bucket.abort_upload(key, upload)
            raise
        return _etag(told) == f"{_md5(digests).hex()}-{len(parts)}"


def download(url: str, into: BinaryIO, most_bytes: int | None = None) -> None:
    """Write the one object at an s3:// URL into a file; for files whose keys are the user's own.
    UsageError, with the rest of a sentence, when it has more than `most_bytes`."""

    def whole(body: Any) -> None:
        into.seek(0)
        into.truncate()
        for chunk in body.iter_chunks(_READ_CHUNK_BYTES):
            into.write(chunk)
            if most_bytes is not None and into.tell() > most_bytes:
                raise UsageError(f"has more than {most_bytes:,} bytes, which the server hid")

    bucket = Bucket(url, patience_s=_READING_S)
    bucket.read(bucket.path, whole)


def head(url: str) -> tuple[int, str]:
    """Size and ETag of the one object at an s3:// URL, whose key is the user's own."""
    bucket = Bucket(url, patience_s=_READING_S)
    found = bucket.call("head_object", bucket.path)
    return int(found["ContentLength"]), str(found["ETag"])


def _about(data: bytes, content_type: str) -> dict[str, Any]:
    return {"ContentType": content_type, "Metadata": {"sha256": _sha256(data)}}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _etag(told: dict[str, Any]) -> str:
    return str(told.get("ETag", "")).strip('"')
