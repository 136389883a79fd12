"""What an error of an S3 call means and what to do about it, in one sentence without credentials."""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as S3ConnectionError

from connectors.s3.address import shown
from moderation.errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialsRefused,
    ResultsNotWritable,
    SoundcheckError,
    SourceArchived,
    SourceChanged,
    SourceError,
    SourceGone,
    UnreachableError,
)

S3_ERRORS = (BotoCoreError, ClientError, Boto3Error, OSError)
"""What S3 calls and the reading of their bodies raise, for `except S3_ERRORS as error: raise explain(error, "...") from error`."""


def explain(error: Exception, doing: str) -> SoundcheckError:
    """What an error of an S3 call means and what to do, in one sentence without credentials, as the error to raise from it.

    doing is what failed, as a gerund: "listing s3://bucket/prefix". A SoundcheckError comes back as it is.
    """
    if isinstance(error, SoundcheckError):
        return error
    if isinstance(error, ClientError):
        return _explain_answer(error, doing)
    beneath = error.__cause__ or error.__context__
    if isinstance(error, Boto3Error) and isinstance(beneath, ClientError | BotoCoreError):
        return explain(beneath, doing)  # boto3's transfers hide the answer in a text
    return _explain_no_answer(error, doing)


class _Meaning(NamedTuple):
    """The error for a code of S3, and the rest of its sentence; {bucket}, {action}, {region} and {said} are filled in."""

    error: type[SoundcheckError]
    text: str


_KEYS = "check the AWS credentials (AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
_DENIED = _Meaning(AccessDeniedError, "S3 refused access: allow these credentials {action}, in IAM and in the bucket's policy")
_EXPIRED = _Meaning(CredentialsRefused, "the AWS credentials have expired: log in again")
_GONE = _Meaning(SourceGone, "there is no such object (any more)")
_BUSY = _Meaning(UnreachableError, "S3 is failing or wants fewer requests ({said}): try again later")
_ELSEWHERE = _Meaning(ConfigurationError, "the bucket is not in this region or at this endpoint: set the S3 region to {region}")
_NO_KEY = _Meaning(ConfigurationError, "the KMS key of its encryption cannot be used ({said}): enable it, or name another one")
_FULL = _Meaning(ResultsNotWritable, "the store is full or its quota is used up: make room")

_MEANINGS: dict[str, _Meaning] = {
    "NoSuchBucket": _Meaning(ConfigurationError, "{bucket} does not exist: create it, or correct its name, region or endpoint"),
    "InvalidBucketName": _Meaning(ConfigurationError, "{bucket} has no valid name: correct it"),
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "Unauthorized": _DENIED,
    "InvalidAccessKeyId": _Meaning(CredentialsRefused, f"S3 does not know this access key id: {_KEYS}"),
    "SignatureDoesNotMatch": _Meaning(CredentialsRefused, f"the secret does not belong to the access key id: {_KEYS}"),
    "InvalidToken": _Meaning(CredentialsRefused, f"the session token is not valid: {_KEYS}, and AWS_SESSION_TOKEN"),
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _Meaning(ConfigurationError, "this host's clock is wrong: set it"),
    "InvalidObjectState": _Meaning(SourceArchived, "the object is archived: restore it first"),
    "NoSuchKey": _GONE,
    "NoSuchVersion": _GONE,
    "MethodNotAllowed": _Meaning(SourceGone, "the object was deleted (a delete marker is in its place)"),
    "PreconditionFailed": _Meaning(SourceChanged, "the object was overwritten since it was listed: the next run takes the new one"),
    "InvalidRange": _Meaning(SourceChanged, "the object is shorter than when it was listed: the next run takes the new one"),
    "PermanentRedirect": _ELSEWHERE,
    "TemporaryRedirect": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "SlowDown": _BUSY,
    "InternalError": _BUSY,
    "ServiceUnavailable": _BUSY,
    "RequestTimeout": _BUSY,
    "Throttling": _BUSY,
    "TooManyRequests": _BUSY,
    "ThrottlingException": _BUSY,
    "KMS.ThrottlingException": _BUSY,
    "KMS.DisabledException": _NO_KEY,
    "KMS.InvalidStateException": _NO_KEY,
    "KMS.NotFoundException": _NO_KEY,
    "QuotaExceeded": _FULL,
    "InsufficientStorage": _FULL,
    "EntityTooLarge": _Meaning(ResultsNotWritable, "the store does not take objects of this size: use smaller packages"),
}
_CODES_BY_STATUS = {
    301: "PermanentRedirect",
    307: "TemporaryRedirect",
    401: "Unauthorized",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    408: "RequestTimeout",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "TooManyRequests",
    507: "InsufficientStorage",
}
"""An answer to HEAD has no body, hence no code; and stores have codes of their own."""
_SERVER_FAULT = 500

_READS = frozenset({"GetObject", "HeadObject", "GetObjectAttributes", "GetObjectTagging"})
_ON_BUCKETS = frozenset({"HeadBucket", "ListObjects", "ListObjectsV2", "ListObjectVersions", "GetBucketLocation", "GetBucketVersioning"})
_ACTIONS = {
    "HeadBucket": "s3:ListBucket",
    "ListObjects": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListBuckets": "s3:ListAllMyBuckets",
    "HeadObject": "s3:GetObject",
    "DeleteObjects": "s3:DeleteObject",
    "CopyObject": "s3:GetObject and s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
}
"""IAM actions by operation, where they are not called the same (AWS, 'Actions, resources, and condition keys for Amazon S3')."""


def action_of(operation: str) -> str:
    """The IAM action that allows an operation."""
    return _ACTIONS.get(operation, f"s3:{operation}")


def _explain_answer(error: ClientError, doing: str) -> SoundcheckError:
    said: Mapping[str, object] = error.response.get("Error", {})
    operation, bucket = error.operation_name, said.get("BucketName")
    meaning = _meaning(str(said.get("Code", "")), _status(error), operation)
    facts = {
        "bucket": f"bucket {bucket}" if bucket else "the bucket",
        "action": _kms_action(str(said.get("Message", ""))) or action_of(operation),
        "region": _region(error) or "the bucket's own",
        "said": _answer(error),
    }
    return meaning.error(f"{doing} failed: {meaning.text.format_map(facts)}")


def _kms_action(message: str) -> str | None:
    """The action on a KMS key that was refused, where that was it: S3 says so in words alone."""
    found = re.search(r"\bkms:[A-Za-z]+", message)
    return found and f"{found[0]} on the key of its encryption"


def _meaning(code: str, status: int, operation: str) -> _Meaning:
    if code not in _MEANINGS:
        code = _CODES_BY_STATUS.get(status, "InternalError" if status >= _SERVER_FAULT else code)
    if code == "NoSuchKey" and operation in _ON_BUCKETS:
        code = "NoSuchBucket"
    if code == "PreconditionFailed" and operation not in _READS:
        return _Meaning(ResultsNotWritable, "another writer was there first ({said}): see who else writes here")
    return _MEANINGS.get(code, _Meaning(ConfigurationError, "S3 answered {said}: check the S3 settings"))


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _region(error: ClientError) -> str | None:
    """The region that S3 says the bucket is in."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers.get("x-amz-bucket-region")


def _answer(error: ClientError) -> str:
    """Status, code and text of an answer."""
    said = error.response.get("Error", {})
    code, text = said.get("Code", ""), said.get("Message", "")
    status = str(_status(error))
    words = [f"HTTP {status}", "" if code == status else code, text]
    return shown(" ".join(word for word in words if word))


_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError, SSOError)


def _explain_no_answer(error: Exception, doing: str) -> SoundcheckError:
    """Errors on this side of S3: credentials, certificates, connections, settings."""
    if isinstance(error, NoCredentialsError):
        return CredentialsRefused(
            f"{doing} failed: no AWS credentials were found: {_KEYS}, or make the access anonymous for a public bucket"
        )
    if isinstance(error, _NO_CREDENTIALS):
        return CredentialsRefused(f"{doing} failed: the AWS credentials could not be had ({shown(str(error))}): log in again, or {_KEYS}")
    if isinstance(error, SSLError) and (advice := _tls_advice(str(error))):
        return ConfigurationError(f"{doing} failed: {advice}")
    if isinstance(error, FlexibleChecksumError):
        return SourceError(f"{doing} failed: the bytes do not match their checksum: try again, then look at the object")
    if isinstance(error, S3ConnectionError | HTTPClientError | IncompleteReadError | OSError):
        return UnreachableError(f"{doing} failed: {_no_connection(error)}")
    return ConfigurationError(f"{doing} failed: {shown(str(error))}: check the AWS configuration and the S3 settings")


def _tls_advice(text: str) -> str | None:
    """What to do about a certificate or a protocol; None where a connection merely broke."""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "the endpoint's certificate is not trusted: name the authority that signed it in AWS_CA_BUNDLE"
    if "WRONG_VERSION_NUMBER" in text:
        return "the endpoint does not speak TLS: use http:// in its URL, or its TLS port"
    return None


def _no_connection(error: Exception) -> str:
    where = f" at {_origin(endpoint)}" if (endpoint := _endpoint(error)) else ""
    if isinstance(error, IncompleteReadError):
        return "the connection broke before the last byte: try again"
    return f"S3{where} did not answer ({type(error).__name__}): check the endpoint, the network and the proxy"


def _endpoint(error: Exception) -> str:
    facts: dict[str, object] = getattr(error, "kwargs", {})
    return str(facts.get("endpoint_url") or "")


def _origin(url: str) -> str:
    """Scheme, host and port of a URL: its path and query may carry a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
