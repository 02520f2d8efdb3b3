"""An S3-compatible bucket through boto3; the only file that imports it.

Invariant: every write carries its SHA-256, conditional writes are one `PutObject` with a single attempt, and
nothing that botocore or urllib3 raises gets out untranslated. No answer takes for ever, or has no end
(stores/patient.py). Retrying is stores/retrying.py's.
What differs between providers, a publisher finds out by asking (publisher/probe.py).
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, BinaryIO

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from urllib3.exceptions import HTTPError

from contracts.errors import (
    AccessDenied,
    ContractError,
    ObjectMissing,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
)
from contracts.layout import cache_control, content_type, parse_key
from stores.base import (
    PIECE_BYTES,
    Create,
    ListedObject,
    ObjectInfo,
    PutMode,
    Reading,
    Update,
    parse_etag,
    parse_rest,
    parse_retry_after,
    parse_size,
    stream_pieces,
)
from stores.patient import HEAD_MAX_BYTES, patient_pools

# Answers that ask for another try, although their status says otherwise ("Error responses", Amazon S3 API
# Reference): a slow line, a body that was cut off or spoilt on it, and a write that met another one half-way.
_SPOILT = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
_LISTING_MAX_BYTES = 16 << 20  # of one page: 1,000 keys of 1,024 bytes, each of them as %XX in XML
_TRY_AGAIN = {"RequestTimeout", "IncompleteBody", "ConditionalRequestConflict", "OperationAborted"}


@dataclass(frozen=True)
class S3Settings:
    """Where a bucket is and who we are there; None leaves it to boto3's own rules."""

    endpoint_url: str | None = None
    region: str = "us-east-1"  # what servers that have no regions expect in a signature
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    addressing_style: str = "auto"  # "path" or "virtual" for servers that insist
    anonymous: bool = False
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0  # of silence, not of the whole answer


class S3Store:
    """The objects beneath `prefix` in a bucket; safe between threads."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        settings: S3Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._settings = settings
        # With the endpoint: the same name elsewhere is another store.
        where = f" at {settings.endpoint_url}" if settings.endpoint_url else ""
        self.address = f"s3://{bucket}/{self._prefix}".rstrip("/") + where
        try:
            self._client = _client(settings, clock)
        except (BotoCoreError, ValueError) as error:
            raise StoreError(f"{self.address}: {error}") from error

    def head(self, key: str) -> ObjectInfo:
        with self._errors(key):
            return _info(self._client.head_object(Bucket=self._bucket, Key=self._name(key)), key)

    def get(self, key: str, start: int = 0) -> Reading:
        with self._errors(key):
            extra = {"Range": f"bytes={start}-"} if start else {}
            answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key), **extra)
        return self._reading(answer, key, start)

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        extra = {"IfNoneMatch": etag} if etag else {}
        try:
            with self._errors(key):
                answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key), **extra)
        except _NotModified:
            return None
        return self._reading(answer, key, 0)

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        conditions = {}
        if isinstance(mode, Create):
            conditions["IfNoneMatch"] = "*"
        elif isinstance(mode, Update):
            if not mode.etag:  # a header without a value would be no condition at all
                raise PreconditionFailed(f"{self.address}: {key} was read without an entity tag")
            conditions["IfMatch"] = mode.etag
        if isinstance(body, bytes):
            digest = hashlib.sha256(body)
        else:
            digest = hashlib.sha256()
            for piece in stream_pieces(body):
                digest.update(piece)
            body.seek(0)
        try:
            return self._put(key, body, digest.digest(), conditions)
        except ObjectMissing as error:  # how AWS and R2 answer If-Match for a key that is gone
            raise PreconditionFailed(f"{self.address}: {key} is gone") from error

    def delete(self, key: str) -> None:
        with self._errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def list_objects(self, prefix: str = "") -> list[ListedObject]:
        start = f"{self._prefix}/" if self._prefix else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=start + prefix
        )
        try:
            with self._errors(""):
                return [
                    ListedObject(found["Key"].removeprefix(start), found["Size"], found["LastModified"])
                    for page in pages
                    for found in page.get("Contents", ())
                ]
        except KeyError as error:
            raise StoreUnavailable(
                f"{self.address}: a listing came without the {error} of an object"
            ) from error

    def now(self) -> datetime | None:
        try:
            with self._errors(""):
                answer = self._client.head_bucket(Bucket=self._bucket)
        except AccessDenied as error:
            # A key that may not ask for the bucket still gets an answer, with a date.
            cause = error.__cause__
            if not isinstance(cause, ClientError):
                raise
            answer = cause.response
        return _date(answer)

    def is_checking_sums(self, key: str) -> bool:
        """Whether a write whose SHA-256 is wrong is refused; one that is not leaves an object under `key`.

        Raises: AccessDenied, StoreUnavailable.
        """
        try:
            self._put(key, b"not what its checksum says", bytes(32), {})
        except _SpoiltUpload:
            return True
        except (AccessDenied, StoreUnavailable):
            raise
        except StoreError:  # in another server's words
            return True
        return False

    def url(self, key: str) -> str:
        """Where anyone can read an object when the bucket is public."""
        parameters = {"Bucket": self._bucket, "Key": self._name(key)}
        return self._unsigned_url("get_object", parameters)

    def listing_url(self, prefix: str) -> str:
        """Where anyone can list the objects that begin with `prefix` when strangers may do that."""
        parameters = {"Bucket": self._bucket, "Prefix": self._name(prefix)}
        return self._unsigned_url("list_objects_v2", parameters)

    def _unsigned_url(self, operation: str, parameters: Mapping[str, str]) -> str:
        with self._errors(""):
            return str(self._stranger.generate_presigned_url(operation, Params=parameters))

    @cached_property
    def _stranger(self) -> Any:
        """A client without credentials, only to spell addresses; made when it is first needed."""
        return _client(replace(self._settings, anonymous=True), time.monotonic)

    def _put(self, key: str, body: bytes | BinaryIO, sha256: bytes, conditions: Mapping[str, str]) -> str:
        with self._errors(key):
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=self._name(key),
                Body=body,
                ChecksumSHA256=base64.b64encode(sha256).decode(),
                **_headers(key),
                **conditions,
            )
        etag = parse_etag(str(answer.get("ETag", "")))
        if not etag:  # whoever has to know it reads back what was written
            raise StoreUnavailable(f"{self.address}: the answer to writing {key} came without an entity tag")
        return etag

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _reading(self, answer: Mapping[str, Any], key: str, start: int) -> Reading:
        body = answer["Body"]
        try:
            info = _info(answer, key)
            if "ContentRange" in answer:
                info = ObjectInfo(parse_rest(str(answer["ContentRange"]), start, key), info.etag)
            elif start:
                raise StoreUnavailable(f"{self.address} ignored the range asked of {key}")
        except StoreUnavailable:
            body.close()
            raise
        return Reading(info, self._pieces(body, key, info.size_bytes - start), body.close)

    def _pieces(self, body: Any, key: str, coming_bytes: int) -> Iterator[bytes]:
        try:
            with self._errors(key):
                # boto3 reads until a whole piece is there, for hours from a server that sends a byte now and
                # then; the stream beneath gives what has come, and leaves it to us whether that was all.
                while piece := body._raw_stream.read1(PIECE_BYTES):
                    coming_bytes -= len(piece)
                    yield piece
            if coming_bytes > 0:
                raise StoreUnavailable(f"{self.address}: {key} broke off {coming_bytes} bytes before its end")
        finally:
            body.close()

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._refusal(error, key) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise AccessDenied(
                f"{self.address}: no credentials; set MUSIC_CLOUD_S3_ACCESS_KEY_ID and its secret, "
                "or the usual AWS variables"
            ) from error
        except RecursionError as error:  # botocore follows a redirect by asking for the bucket's region
            raise StoreError(f"{self.address}: the endpoint redirects elsewhere; use that address") from error
        except ParamValidationError as error:  # nothing was sent: no bucket can have such a name
            raise StoreError(f"{self.address}: {error}") from error
        # botocore parses the headers of an answer, and lets out what a wrong one raises.
        except (BotoCoreError, HTTPError, OSError, ValueError) as error:
            why = getattr(error, "kwargs", {}).get("error")  # what botocore keeps to itself
            raise StoreUnavailable(f"{self.address}: {key}: {error}" + (f" {why}" if why else "")) from error

    def _refusal(self, error: ClientError, key: str) -> StoreError:
        # The status decides, not the code: HEAD answers carry none, and servers spell them differently.
        metadata = error.response.get("ResponseMetadata", {})
        status = metadata.get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        headers = metadata.get("HTTPHeaders", {})
        where = f"{self.address}: {key}" if key else self.address
        if status == 304:
            return _NotModified(where)
        if code == "NoSuchBucket" or (status == 404 and not key):
            return StoreError(f"{self.address}: there is no such bucket")
        if status == 404:
            return ObjectMissing(key, self.address)
        if code in _SPOILT:
            return _SpoiltUpload(f"{where}: the upload was damaged on its way ({status} {code})")
        if code in _TRY_AGAIN or status == 408:
            return _unavailable(f"{where}: {status} {code}", headers)
        if status in (409, 412):
            return PreconditionFailed(f"{where} exists already or has changed ({status} {code})")
        if status in (401, 403):
            if code == "RequestTimeTooSkewed":
                return AccessDenied(
                    f"{where}: refused, because this machine's clock is wrong ({status} {code})"
                )
            return AccessDenied(f"{where}: refused ({status} {code}); a missing object may look so too")
        if status == 429 or status >= 500 or status == 0:
            if status == 501:
                return StoreError(f"{where}: the store does not implement this request ({code})")
            return _unavailable(f"{where}: {status} {code}", headers)
        return StoreError(f"{where}: {status} {code}: {error.response.get('Error', {}).get('Message', '')}")


class _SpoiltUpload(StoreUnavailable):
    """What arrived is not what its checksum promised; nobody outside this file tells it from an outage."""


class _NotModified(StoreError):
    """Status 304: not an error to anybody outside this file."""


def _client(settings: S3Settings, clock: Callable[[], float]) -> Any:
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key,
        aws_session_token=settings.session_token,
        config=Config(
            signature_version=UNSIGNED if settings.anonymous else "s3v4",
            s3={"addressing_style": settings.addressing_style},
            # Checksums that we did not ask for break many servers (boto/boto3#4392).
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
            max_pool_connections=16,
            retries={"total_max_attempts": 1},
        ),
    )
    # botocore has no other way to say what reads an answer; its managers, also of proxies, share this.
    pools = client._endpoint.http_session._pool_classes_by_scheme
    pools.update(patient_pools(pools, clock, _body_max_bytes))
    return client


def _body_max_bytes(method: str, url: str) -> int | None:
    """How large an answer may be that is not refused; None for an object."""
    if method != "GET":
        return HEAD_MAX_BYTES
    return _LISTING_MAX_BYTES if "list-type=2" in url.partition("?")[2] else None


def _unavailable(message: str, headers: Mapping[str, str]) -> StoreUnavailable:
    return StoreUnavailable(message, parse_retry_after(headers.get("retry-after"), headers.get("date")))


def _headers(key: str) -> dict[str, str]:
    try:
        kind = parse_key(key).kind
    except ContractError:  # a scratch key
        return {"CacheControl": "no-store", "ContentType": "application/octet-stream"}
    return {"CacheControl": cache_control(kind), "ContentType": content_type(kind)}


def _info(answer: Mapping[str, Any], key: str) -> ObjectInfo:
    size_bytes = parse_size(str(answer.get("ContentLength")), key)
    return ObjectInfo(size_bytes, parse_etag(str(answer.get("ETag", ""))))


def _date(answer: Mapping[str, Any]) -> datetime | None:
    """The Date header, which is set when an answer begins (RFC 9110, section 6.6.1)."""
    value = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return None if value is None else parsedate_to_datetime(value).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None
