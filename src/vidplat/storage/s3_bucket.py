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
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

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
    SSLError,
)
from botocore.parsers import ResponseParserError

from vidplat.config import is_plain
from vidplat.errors import StoreError, UsageError, holds_loose_password, printable
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
    "SlowDown", "Throttling", "RequestTimeout", "ConditionalRequestConflict", "BadDigest",
    "IncompleteBody", "XAmzContentSHA256Mismatch",
}  # fmt: skip
_REFUSED_CODES = {
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "TokenRefreshRequired", "403", "401",
}  # fmt: skip
_SKEWED_CODES = {"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"}
_FULL_CODES = {
    "QuotaExceeded", "InsufficientStorage", "507", "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded", "ServiceQuotaExceeded", "StorageFull",
}  # fmt: skip
_ELSEWHERE_CODES = {
    "AuthorizationHeaderMalformed", "PermanentRedirect", "301", "307", "TemporaryRedirect",
    "IllegalLocationConstraintException",
}  # fmt: skip
#: What stores answer to a condition that they do not know.
_UNCONDITIONAL = {
    (501, None),
    (405, None),
    (304, None),
    (400, "400"),
    (400, "InvalidArgument"),
    (400, "InvalidRequest"),
    (400, "NotImplemented"),
    (400, "UnsupportedHeader"),
}
#: Words of what does not pass by itself: of TLS, and of credentials that no header can hold.
_WRONG_TLS = (
    "certificate", "wrong version", "record layer", "unknown protocol", "http request",
    "no such file",
)  # fmt: skip
_WRONG_HEADER = "invalid header value"
#: What botocore raises, by design or because its settings are wrong; streams and files among them.
_FAILURES = (
    ClientError, BotoCoreError, ResponseParserError, OSError, ValueError, RecursionError,
)  # fmt: skip

T = TypeVar("T")


class AlreadyThere(StoreError):
    """A conditional put met an existing object."""


class Bucket:
    """The bucket of an s3:// URL; `path` is the rest of it: a prefix, or one object's key.

    Nothing is contacted before the first request. Raises UsageError for a URL that is none of ours.
    Threads may share it.
    """

    def __init__(self, url: str, *, patience_s: float = 60.0) -> None:
        self.name, self.path, options = _read(url)
        self._patience_s = patience_s
        endpoint, region = options.get("endpoint"), options.get("region")
        settings = tuple(sorted(each for each in os.environ.items() if each[0].startswith("AWS_")))
        self._client_waiting = partial(_client, endpoint, region, settings)
        try:
            self._client = self._client_waiting(answer_within_s(0))
        except _FAILURES as error:
            raise UsageError(f"{printable(url)} cannot be used: {printable(error)}") from error

    def call(
        self, operation: str, key: str, sent_bytes: int = 0, **arguments: Any
    ) -> dict[str, Any]:
        """The answer to one request about an object. Raises StoreError, NotFound, AlreadyThere."""
        limit_s = answer_within_s(sent_bytes)
        hurried = limit_s == answer_within_s(0)
        client = self._client if hurried else self._client_waiting(limit_s)
        request = partial(getattr(client, operation), Bucket=self.name, Key=key, **arguments)
        is_conditional = "IfNoneMatch" in arguments
        answer: dict[str, Any] = self._patiently(request, key, limit_s, is_conditional)
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

    def _patiently(
        self, request: Callable[[], T], key: str, limit_s: int = 0, is_conditional: bool = False
    ) -> T:
        """`request()`, again and again while its errors are of the kind that passes. A time limit
        of its own, in `limit_s`, comes on top of the store's patience: that an upload takes long
        must not make it the last."""
        give_up_at = time.monotonic() + self._patience_s + max(0, limit_s - answer_within_s(0))
        pause_s = _BACK_OFF_S
        while True:
            try:
                return request()
            except _FAILURES as error:
                wait_s = random.uniform(0, pause_s)
                if not _may_pass(error) or time.monotonic() + wait_s > give_up_at:
                    raise self._explained(error, key, is_conditional) from error
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_BACK_OFF_S)

    def _explained(self, error: Exception, key: str, is_conditional: bool) -> StoreError:
        """A StoreError in one sentence, without credentials, for what botocore raised."""
        endpoint = printable(self._client.meta.endpoint_url)
        where = f"s3://{printable(self.name)}/{printable(key)} at {endpoint}"
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return StoreError.lasting(
                f"no S3 credentials for {where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or a profile"
            )
        if not isinstance(error, ClientError):
            return _unanswered(error, where)
        status, code = _answered(error)
        said = " ".join(dict.fromkeys((str(status), printable(code))))
        if status == 412 or code == "PreconditionFailed":
            return AlreadyThere(where)
        if is_conditional and not {(status, None), (status, code)}.isdisjoint(_UNCONDITIONAL):
            return StoreError.lasting(
                f"{endpoint} does not know conditional puts (it answered {said} to "
                "If-None-Match: *): two workers could commit the same job. Use another store"
            )
        if code in _SKEWED_CODES:
            return StoreError.lasting(
                f"{endpoint} refused the time of this machine's clock{_skew(error)}: set the clock"
            )
        if code in _FULL_CODES:
            return StoreError.lasting(
                f"{where} is full ({said}): free some space, raise its quota, or choose another "
                "output prefix"
            )
        if code in _ELSEWHERE_CODES:
            return StoreError.lasting(
                f"the bucket of {where} is in another region ({said}): set AWS_REGION, or add "
                "?region= to the URL"
            )
        if code == "NoSuchBucket":
            return StoreError.lasting(
                f"no bucket '{printable(self.name)}' at {endpoint}: create it, or check its name"
            )
        if _is_web_page(error):
            page = f"{where} answered {said} with a web page, not as S3 does: check the endpoint"
            # 500: also what botocore makes of a page that comes with 200
            return StoreError(page) if status > 500 else StoreError.lasting(page)
        if status == 404:
            return NotFound(f"{where} does not exist")
        if code in _REFUSED_CODES or status in (401, 403):
            return StoreError.lasting(
                f"S3 refused the credentials for {where} ({printable(code)}): check the keys and "
                "their rights"
            )
        answered = f"{where} answered {said}"
        return StoreError(answered) if _may_pass(error) else StoreError.lasting(answered)


def _read(url: str) -> tuple[str, str, dict[str, str]]:
    """Bucket, path and options of an s3:// URL. Raises UsageError for one that is none of ours."""
    shown = printable(url)
    # what urlsplit drops without a word
    if not is_plain(url) or "#" in url:
        raise UsageError(f"{shown} holds a '#' or a control character: no part of it can")
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        endpoint = urlsplit(options.get("endpoint", "http://host"))
        has_user = "@" in parts.netloc or holds_loose_password(url) or endpoint.username is not None
        is_address = endpoint.hostname is not None and endpoint.port != 0
    except ValueError as error:  # brackets of no address, a port that is none
        raise UsageError(f"{shown} cannot be read as a URL: {printable(error)}") from error
    if has_user:
        raise UsageError(
            "an s3:// URL must not hold credentials: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY instead"
        )
    if options.keys() - {"endpoint", "region"}:  # whose names may be a secret, too
        raise UsageError(f"{shown} has options other than endpoint and region")
    if endpoint.scheme not in ("http", "https") or not is_address or endpoint.query:
        raise UsageError(f"{shown}: write the endpoint as http://host:port or https://host")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", parts.netloc):
        raise UsageError(
            f"{shown} names no bucket: write s3://bucket/prefix, and a server of your own as "
            "s3://bucket/prefix?endpoint=http://host:port"
        )
    return parts.netloc, parts.path.strip("/"), options


def _unanswered(error: Exception, where: str) -> StoreError:
    """For what is no answer of S3's."""
    said = printable(error)
    if _WRONG_HEADER in said.lower():
        return StoreError.lasting(
            f"the S3 credentials for {where} hold a line end or a control character: set "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN anew"
        )
    if isinstance(error, SSLError) and not _may_pass(error):
        return StoreError.lasting(
            f"{where} cannot be reached safely: check https or http in the endpoint, and the "
            f"certificate (AWS_CA_BUNDLE names those to trust) ({said})"
        )
    if isinstance(error, RecursionError):
        return StoreError.lasting(f"{where} redirects without end: check endpoint and region")
    if isinstance(error, ResponseParserError):
        return StoreError.lasting(f"{where} did not answer as S3 does: check the endpoint")
    if isinstance(error, _PASSING_ERRORS):
        return StoreError(f"{where} cannot be reached: {said}")
    return StoreError.lasting(f"{where} cannot be used: {said}")


def _is_web_page(error: ClientError) -> bool:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    is_html = str(headers.get("content-type", "")).startswith("text/html")
    # the answer to a HEAD has no body that could be one
    return is_html and _answered(error)[1].isdigit() and not error.operation_name.startswith("Head")


def _skew(error: ClientError) -> str:
    """` (10:00:05 here, 10:20:00 there)`, if the server told its time."""
    date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        theirs = parsedate_to_datetime(str(date))
    except ValueError:
        return ""
    return f" ({datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC here, {theirs:%Y-%m-%d %H:%M:%S} there)"


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
    if isinstance(error, SSLError | HTTPClientError):
        said = str(error).lower()
        return not any(word in said for word in (*_WRONG_TLS, _WRONG_HEADER))
    if not isinstance(error, ClientError):
        return isinstance(error, _PASSING_ERRORS)
    status, code = _answered(error)
    if status in (501, 507) or code in _FULL_CODES or (status == 500 and _is_web_page(error)):
        return False
    return status >= 500 or status in (409, 429) or code in _PASSING_CODES


def _answered(error: ClientError) -> tuple[int, str]:
    """The HTTP status and the code of an answer that is an error."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status, str(error.response.get("Error", {}).get("Code", "unknown"))
