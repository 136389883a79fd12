"""The least that AWS must allow: an IAM policy of exactly the requests that soundcheck makes."""

import re
from collections.abc import Sequence
from typing import Any

from connectors.s3.address import S3Uri
from connectors.s3.failures import action_of

READING = ("GetObject", "HeadObject")
WRITING = ("PutObject", "DeleteObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload")
"""Operations on objects; a large file goes up in parts, and one that breaks off is ended."""
_WILD = re.compile(r"[*?$]")


def policy(catalogues: Sequence[S3Uri], results: S3Uri | None, *, versions: bool = False, partition: str = "aws") -> dict[str, Any]:
    """The policy document. results is the folder that datasets lie in; versions is for inventories and key lists with version ids.

    Of a catalogue objects are listed and read. Of the results they are also written and deleted. partition is that of the ARNs.
    """
    statements = []
    for catalogue in dict.fromkeys(catalogues):
        statements += [_list(catalogue, partition), _allow(catalogue, partition, READING, ["s3:GetObjectVersion"] if versions else [])]
    if results is not None:
        statements += [_list(results, partition), _allow(results, partition, READING + WRITING)]
    return {"Version": "2012-10-17", "Statement": statements}


def _list(place: S3Uri, partition: str) -> dict[str, Any]:
    """Listing below a prefix.

    "IfExists" because S3 asks this permission without any prefix where an object is read that does not exist: without it the answer is that
    access is denied, and not that there is none (AWS, 'GetObject', Permissions).
    """
    return {
        "Effect": "Allow",
        "Action": [action_of("ListObjectsV2")],
        "Resource": [f"arn:{partition}:s3:::{place.bucket}"],
        "Condition": {"StringLikeIfExists": {"s3:prefix": [f"{_literal(place.prefix)}*"]}},
    }


def _allow(place: S3Uri, partition: str, operations: Sequence[str], more: Sequence[str] = ()) -> dict[str, Any]:
    actions = sorted({action_of(operation) for operation in operations} | set(more))
    return {"Effect": "Allow", "Action": actions, "Resource": [f"arn:{partition}:s3:::{place.bucket}/{_literal(place.prefix)}*"]}


def _literal(prefix: str) -> str:
    """A prefix in which nothing is a wildcard, or a variable."""
    return _WILD.sub(lambda sign: f"${{{sign[0]}}}", prefix)
