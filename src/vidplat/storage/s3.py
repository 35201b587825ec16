"""A bucket as a store: S3, or any server that speaks it.

    s3://bucket/prefix                                 AWS, or AWS_ENDPOINT_URL
    s3://bucket/prefix?endpoint=http://127.0.0.1:9000  another server; `&region=eu-west-1` if it
                                                       cares

Credentials come from the usual places of boto3 (environment, profile, instance role), never from
the URL.

How it keeps its word:
- `put_if_absent` is one PutObject with `If-None-Match: *`: 412 means that somebody was first, 409
  that two are racing, so ask again. Completing a multipart upload with a condition is not relied
  on; some servers ignore it.
- Every upload carries its MD5, which the server checks, and its SHA-256 as metadata, which `facts`
  reads.
- Above 16 MiB an object goes up in parts: it is invisible until complete, and a failed upload is
  aborted.
- Errors that pass (5xx, throttling, timeouts, broken connections, truncated bodies) are retried
  with full jitter until `patience_s` is spent. The retries are ours, not botocore's, since its own
  do not cover a body that breaks off, and count attempts instead of seconds.
- An upload is given time for its size: the answer comes only when all has gone through, which on a
  thin link is long after the last byte was written to the socket. Giving up on it and beginning
  anew would never end.

Not promised: objects above 5 GiB (a single copy request cannot move them).
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any, BinaryIO, TypeVar
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)

from vidplat.errors import StoreError, UsageError, printable
from vidplat.storage.stores import NotFound, ObjectFacts, checked_key

MULTIPART_ABOVE_BYTES = 16 << 20
PAGE_KEYS = 1000  # in one answer of a listing
_PART_BYTES = 8 << 20
_READ_CHUNK_BYTES = 1 << 20
_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.1, 5.0
_IMPATIENT_S = 4.0
_ANSWER_WITHIN_S = (10, 40, 160, 320)  # time limits of requests; each has a client of its own
_PATIENT_WRITE_S = (
    20  # urllib3 takes its limit of connecting for each write, too, of 16 KiB when buffers are full
)
_SLOWEST_BYTES_PER_S = 500  # 4 kbit/s: a link that still gets a small video through
_PASSING_ERRORS = (ConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError)
_PASSING_CODES = {
    "SlowDown",
    "Throttling",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ConditionalRequestConflict",
}
_REFUSED_CODES = {
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "403",
    "401",
}

T = TypeVar("T")


class S3Store:
    """Objects below `prefix` of `bucket`. Holds one boto3 client, which threads may share."""

    def __init__(
        self, client: Any, bucket: str, prefix: str, url: str, *, patience_s: float = 60.0
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._url = url
        self._patience_s = patience_s

    @classmethod
    def at(cls, url: str, *, patience_s: float = 60.0) -> S3Store:
        """The store at an s3:// URL; nothing is contacted yet."""
        client, bucket, prefix = _opened(url)
        return cls(
            client, bucket, checked_key(prefix) if prefix else "", url, patience_s=patience_s
        )

    def below(self, folder: str) -> S3Store:
        """The store of a folder of this one, over the same connections."""
        start, mark, options = self._url.partition("?")
        url = f"{start.rstrip('/')}/{checked_key(folder)}{mark}{options}"
        return S3Store(
            self._client, self._bucket, self._key(folder), url, patience_s=self._patience_s
        )

    @property
    def url(self) -> str:
        return self._url

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        about = {
            "ContentType": content_type,
            "Metadata": {"sha256": hashlib.sha256(data).hexdigest()},
        }
        if len(data) > MULTIPART_ABOVE_BYTES:
            self._put_in_parts(key, data, about)
        else:
            self._call("put_object", key, len(data), Body=data, ContentMD5=_md5(data), **about)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        about = {
            "ContentType": "application/json",
            "Metadata": {"sha256": hashlib.sha256(data).hexdigest()},
        }
        try:
            self._call(
                "put_object",
                key,
                len(data),
                Body=data,
                ContentMD5=_md5(data),
                IfNoneMatch="*",
                **about,
            )
        except _AlreadyThere:
            return False
        return True

    def get(self, key: str) -> bytes:
        def whole() -> bytes:
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._key(key))[
                "Body"
            ].read()
            return body

        return self._patiently(whole, key)

    def facts(self, key: str, *, digest: bool = True) -> ObjectFacts | None:
        try:
            head = self._call("head_object", key)
        except NotFound:
            return None
        return ObjectFacts(
            head["ContentLength"], head["Metadata"].get("sha256"), head["LastModified"].timestamp()
        )

    def copy(self, source: str, target: str) -> None:
        self._call(
            "copy_object", target, CopySource={"Bucket": self._bucket, "Key": self._key(source)}
        )

    def move(self, source: str, target: str) -> None:
        self.copy(source, target)
        self.delete(source)

    def delete(self, key: str) -> None:
        try:
            self._call("delete_object", key)
        except NotFound:
            return

    def list(self, prefix: str = "") -> Iterator[str]:
        own = f"{self._prefix}/" if self._prefix else ""
        below = f"{self._key(prefix)}/" if prefix else own
        for page in self._pages(
            "list_objects_v2", "ContinuationToken", Prefix=below, MaxKeys=PAGE_KEYS
        ):
            for found in page.get("Contents", ()):
                yield found["Key"].removeprefix(own)

    def uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._key(key)}"

    def impatient(self) -> S3Store:
        return S3Store(self._client, self._bucket, self._prefix, self._url, patience_s=_IMPATIENT_S)

    def sweep_unfinished(self, prefix: str, older_than_s: float) -> int:
        newest_swept = datetime.now(UTC) - timedelta(seconds=older_than_s)
        below = f"{self._key(prefix)}/" if prefix else self._prefix
        removed = 0
        for page in self._pages(
            "list_multipart_uploads", "KeyMarker", "UploadIdMarker", Prefix=below
        ):
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] <= newest_swept:
                    self._abort(upload["Key"], upload["UploadId"])
                    removed += 1
        return removed

    # --- requests ---------------------------------------------------------------------------------

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{checked_key(key)}" if self._prefix else checked_key(key)

    def _call(
        self, operation: str, key: str, sent_bytes: int = 0, **arguments: Any
    ) -> dict[str, Any]:
        limit_s = answer_within_s(sent_bytes)
        client = (
            self._client
            if limit_s == answer_within_s(0)
            else _opened_as_before(self._url, limit_s)[0]
        )
        request = getattr(client, operation)
        answer: dict[str, Any] = self._patiently(
            lambda: request(Bucket=self._bucket, Key=self._key(key), **arguments), key, limit_s
        )
        return answer

    def _pages(self, operation: str, *tokens: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Each page of a listing; `tokens` are what the next request repeats from the last
        answer."""
        request, below = (
            partial(getattr(self._client, operation), Bucket=self._bucket),
            arguments["Prefix"],
        )
        while True:
            page = self._patiently(partial(request, **arguments), below)
            yield page
            if not page.get("IsTruncated"):
                return
            arguments |= {token: page[f"Next{token}"] for token in tokens}

    def _put_in_parts(self, key: str, data: bytes, about: dict[str, Any]) -> None:
        upload = self._call("create_multipart_upload", key, **about)["UploadId"]
        try:
            parts = []
            for number, start in enumerate(range(0, len(data), _PART_BYTES), start=1):
                part = data[start : start + _PART_BYTES]
                which = {"UploadId": upload, "PartNumber": number}
                done = self._call(
                    "upload_part", key, len(part), Body=part, ContentMD5=_md5(part), **which
                )
                parts.append({"PartNumber": number, "ETag": done["ETag"]})
            self._call(
                "complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        except NotFound as gone:
            # a completed upload answers "no such upload" when its first answer was lost: then the
            # object is there
            found = self.facts(key)
            if found is None or (found.size_bytes, found.sha256) != (
                len(data),
                about["Metadata"]["sha256"],
            ):
                raise StoreError(
                    f"the upload of {printable(self.uri(key))} vanished on the server"
                ) from gone
        except StoreError:
            self._abort(self._key(key), upload)
            raise

    def _abort(self, full_key: str, upload: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=full_key, UploadId=upload)
        except (ClientError, BotoCoreError):
            return  # gone already, or the server is: a later sweep or its lifecycle rule removes it

    def _patiently(self, request: Callable[[], T], key: str, limit_s: int = 0) -> T:
        """`request()`, again and again while its errors are of the kind that passes. A time limit
        of its own, in `limit_s`, comes on top of the store's patience: that an upload takes long
        must not make it the last."""
        give_up_at = time.monotonic() + self._patience_s + max(0, limit_s - answer_within_s(0))
        pause_s = _BACK_OFF_S
        while True:
            try:
                return request()
            except (ClientError, BotoCoreError) as error:
                wait_s = random.uniform(0, pause_s)
                if not _may_pass(error) or time.monotonic() + wait_s > give_up_at:
                    raise _explained(
                        error, self._bucket, key, self._client.meta.endpoint_url
                    ) from error
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_BACK_OFF_S)


def answer_within_s(sent_bytes: int) -> int:
    """How long to wait for the answer to a request of so many bytes, of a few steps so that clients
    are few."""
    needed_s = _ANSWER_WITHIN_S[0] + (sent_bytes - 1024) / _SLOWEST_BYTES_PER_S
    return next(
        (limit_s for limit_s in _ANSWER_WITHIN_S if limit_s >= needed_s), _ANSWER_WITHIN_S[-1]
    )


def download(url: str, into: BinaryIO) -> None:
    """Write the one object at an s3:// URL into a file; for files whose keys are the user's own."""
    client, bucket, key = _opened_as_before(url)
    store = S3Store(client, bucket, "", url, patience_s=20.0)

    def whole() -> None:
        into.seek(0)
        into.truncate()
        body = client.get_object(Bucket=bucket, Key=key)["Body"]
        for chunk in body.iter_chunks(_READ_CHUNK_BYTES):
            into.write(chunk)

    store._patiently(whole, key)


def head(url: str) -> tuple[int, str]:
    """Size and ETag of the one object at an s3:// URL, whose key is the user's own."""
    client, bucket, key = _opened_as_before(url)
    store = S3Store(client, bucket, "", url, patience_s=20.0)
    found = store._patiently(lambda: client.head_object(Bucket=bucket, Key=key), key)
    return int(found["ContentLength"]), str(found["ETag"])


def _opened_as_before(url: str, limit_s: int | None = None) -> tuple[Any, str, str]:
    """As `_opened`, with one client for all objects of a server: making one takes longer than
    reading a small file."""
    parts = urlsplit(url)
    settings = tuple(
        sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    )
    options = f"?{parts.query}" if parts.query else ""
    client = _client_of(f"s3://{parts.netloc}/{options}", settings, limit_s)
    return client, parts.netloc, parts.path.strip("/")


@lru_cache(maxsize=16)
def _client_of(url: str, settings: tuple[tuple[str, str], ...], limit_s: int | None) -> Any:
    """The client of a bucket's URL; `settings` are the environment's, so that other credentials get
    another client."""
    return _opened(url, limit_s)[0]


class _AlreadyThere(StoreError):
    """A conditional put met an existing object."""


def _opened(url: str, limit_s: int | None = None) -> tuple[Any, str, str]:
    """(client, bucket, key or prefix) of an s3:// URL; the client waits `limit_s` for an answer."""
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    if "@" in parts.netloc:
        raise UsageError(
            "an s3:// URL must not hold credentials: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY instead"
        )
    if unknown := options.keys() - {"endpoint", "region"}:
        raise UsageError(
            f"{printable(url)}: unknown option {printable(min(unknown))}; endpoint and region "
            "are known"
        )
    endpoint, region = (options.get(name, [None])[0] for name in ("endpoint", "region"))
    session = boto3.session.Session()
    config = Config(
        connect_timeout=3 if limit_s is None else _PATIENT_WRITE_S,
        read_timeout=limit_s or answer_within_s(0),
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"} if endpoint else None,
        # MD5 is sent instead: servers other than AWS often know no other checksum
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=32,
    )
    try:
        client = session.client(
            "s3",
            endpoint_url=endpoint,
            region_name=region or session.region_name or "us-east-1",
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"{printable(url)}: {printable(error)}") from error
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if not bucket:
        raise UsageError(f"{printable(url)} names no bucket: write s3://bucket/prefix")
    return client, bucket, prefix


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _may_pass(error: Exception) -> bool:
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return (
            status >= 500
            or status in (409, 429)
            or error.response.get("Error", {}).get("Code") in _PASSING_CODES
        )
    return isinstance(error, _PASSING_ERRORS)


def _explained(error: Exception, bucket: str, key: str, endpoint: str) -> StoreError:
    """A StoreError in one sentence, without credentials, for what botocore raised."""
    where = f"s3://{printable(bucket)}/{printable(key)} at {printable(endpoint)}"
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return _lasting(
            f"no S3 credentials for {where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or a profile"
        )
    if not isinstance(error, ClientError):
        return StoreError(f"{where} cannot be reached: {printable(error)}")
    code = str(error.response.get("Error", {}).get("Code", "unknown"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status == 412 or code == "PreconditionFailed":
        return _AlreadyThere(where)
    if code == "NoSuchBucket":
        return _lasting(
            f"no bucket '{printable(bucket)}' at {printable(endpoint)}: create it, or check its "
            "name"
        )
    if status == 404:
        return NotFound(f"{where} does not exist")
    if code in _REFUSED_CODES or status in (401, 403):
        return _lasting(
            f"S3 refused the credentials for {where} ({printable(code)}): check the keys and "
            "their rights"
        )
    return StoreError(f"{where} answered {status} {printable(code)}")


def _lasting(message: str) -> StoreError:
    error = StoreError(message)
    error.retry_can_help = False
    return error
