"""Requests to one bucket: who is asked, how long an answer may take, and when to ask again.

- Errors that pass (5xx, throttling, timeouts, broken connections, truncated bodies) are retried
  with full jitter until `patience_s` is spent. The retries are ours, not botocore's, since its own
  do not cover a body that breaks off, and count attempts instead of seconds.
- A request is given time for its size: the answer comes only when all has gone through, which on a
  thin link is long after the last byte was written to the socket. Giving up on it and beginning
  anew would never end.
- boto3 clients are shared by all who ask the same server with the same settings: making one takes
  longer than reading a small file.

Credentials come from the usual places of boto3 (environment, profile, instance role), never from
the URL.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, TypeVar
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
from vidplat.storage.stores import NotFound

PAGE_KEYS = 1000  # in one answer of a listing
_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.1, 5.0
_CONNECT_S = 3
_ANSWER_WITHIN_S = (10, 40, 160, 320)  # time limits of requests; each has a client of its own
# urllib3 takes its limit of connecting for each write, too, of 16 KiB when buffers are full
_PATIENT_WRITE_S = 20
_SLOWEST_BYTES_PER_S = 500  # 4 kbit/s: a link that still gets a small video through
_PASSING_ERRORS = (ConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError)
_PASSING_CODES = {
    "SlowDown", "Throttling", "RequestTimeout", "RequestTimeTooSkewed",
    "ConditionalRequestConflict", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch",
}  # fmt: skip
_REFUSED_CODES = {
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403", "401",
}  # fmt: skip

T = TypeVar("T")


class AlreadyThere(StoreError):
    """A conditional put met an existing object."""


class Bucket:
    """The bucket of an s3:// URL; `path` is the rest of it: a prefix, or one object's key.

    Nothing is contacted before the first request. Raises UsageError for a URL that is none of ours.
    Threads may share it.
    """

    def __init__(self, url: str, *, patience_s: float = 60.0) -> None:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise UsageError(
                "an s3:// URL must not hold credentials: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY instead"
            )
        options = parse_qs(parts.query)
        if unknown := options.keys() - {"endpoint", "region"}:
            raise UsageError(
                f"{printable(url)}: unknown option {printable(min(unknown))}; endpoint and region "
                "are known"
            )
        if not parts.netloc:
            raise UsageError(f"{printable(url)} names no bucket: write s3://bucket/prefix")
        self.name, self.path = parts.netloc, parts.path.strip("/")
        self._patience_s = patience_s
        endpoint, region = (options.get(name, [None])[0] for name in ("endpoint", "region"))
        settings = tuple(sorted(each for each in os.environ.items() if each[0].startswith("AWS_")))
        self._client_waiting = partial(_client, endpoint, region, settings)
        try:
            self._client = self._client_waiting(answer_within_s(0))
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"{printable(url)}: {printable(error)}") from error

    def call(
        self, operation: str, key: str, sent_bytes: int = 0, **arguments: Any
    ) -> dict[str, Any]:
        """The answer to one request about an object. Raises StoreError, NotFound, AlreadyThere."""
        limit_s = answer_within_s(sent_bytes)
        hurried = limit_s == answer_within_s(0)
        client = self._client if hurried else self._client_waiting(limit_s)
        request = partial(getattr(client, operation), Bucket=self.name, Key=key, **arguments)
        answer: dict[str, Any] = self._patiently(request, key, limit_s)
        return answer

    def read(self, key: str, consume: Callable[[Any], T]) -> T:
        """What `consume` makes of an object's body; it begins anew when the body breaks off."""

        def whole() -> T:
            return consume(self._client.get_object(Bucket=self.name, Key=key)["Body"])

        return self._patiently(whole, key)

    def pages(self, operation: str, below: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """A listing of what is below a prefix, page by page, each asked for until it comes."""
        paginator, token = self._client.get_paginator(operation), None
        while True:
            page = paginator.paginate(
                Bucket=self.name,
                Prefix=below,
                PaginationConfig={
                    "MaxItems": PAGE_KEYS,
                    "PageSize": PAGE_KEYS,
                    "StartingToken": token,
                },
                **arguments,
            )
            found = self._patiently(page.build_full_result, below)
            yield found
            token = found.get("NextToken")
            if token is None:
                return

    def abort_upload(self, key: str, upload: str) -> None:
        """Forget the parts of an upload, if that is still to be had: else it is gone already, or
        the server is, and a later sweep or its lifecycle rule removes it."""
        with suppress(ClientError, BotoCoreError):
            self._client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)

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
                    raise self._explained(error, key) from error
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_BACK_OFF_S)

    def _explained(self, error: Exception, key: str) -> StoreError:
        """A StoreError in one sentence, without credentials, for what botocore raised."""
        endpoint = printable(self._client.meta.endpoint_url)
        where = f"s3://{printable(self.name)}/{printable(key)} at {endpoint}"
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return _lasting(
                f"no S3 credentials for {where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or a profile"
            )
        if not isinstance(error, ClientError):
            return StoreError(f"{where} cannot be reached: {printable(error)}")
        status, code = _answered(error)
        if status == 412 or code == "PreconditionFailed":
            return AlreadyThere(where)
        if code == "NoSuchBucket":
            return _lasting(
                f"no bucket '{printable(self.name)}' at {endpoint}: create it, or check its name"
            )
        if status == 404:
            return NotFound(f"{where} does not exist")
        if code in _REFUSED_CODES or status in (401, 403):
            return _lasting(
                f"S3 refused the credentials for {where} ({printable(code)}): check the keys and "
                "their rights"
            )
        return StoreError(f"{where} answered {status} {printable(code)}")


def answer_within_s(sent_bytes: int) -> int:
    """How long to wait for the answer to a request of so many bytes, in a few steps."""
    needed_s = _ANSWER_WITHIN_S[0] + (sent_bytes - 1024) / _SLOWEST_BYTES_PER_S
    return next(
        (limit_s for limit_s in _ANSWER_WITHIN_S if limit_s >= needed_s), _ANSWER_WITHIN_S[-1]
    )


@lru_cache(maxsize=16)
def _client(
    endpoint: str | None, region: str | None, settings: tuple[tuple[str, str], ...], limit_s: int
) -> Any:
    """A boto3 client that waits `limit_s` for an answer; `settings` are the environment's, so that
    other credentials get another client."""
    session = boto3.session.Session()
    config = Config(
        connect_timeout=_CONNECT_S if limit_s == answer_within_s(0) else _PATIENT_WRITE_S,
        read_timeout=limit_s,
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"} if endpoint else None,
        # digests are sent by hand (s3.py): boto3's own come in a form that not all servers know
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=32,
    )
    return session.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region or session.region_name or "us-east-1",
        config=config,
    )


def _may_pass(error: Exception) -> bool:
    if not isinstance(error, ClientError):
        return isinstance(error, _PASSING_ERRORS)
    status, code = _answered(error)
    return status >= 500 or status in (409, 429) or code in _PASSING_CODES


def _answered(error: ClientError) -> tuple[int, str]:
    """The HTTP status and the code of an answer that is an error."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status, str(error.response.get("Error", {}).get("Code", "unknown"))


def _lasting(message: str) -> StoreError:
    error = StoreError(message)
    error.retry_can_help = False
    return error
