"""S3 addresses as people write them, and text from elsewhere as it may be shown to them."""

import re
from dataclasses import dataclass
from typing import Self

from moderation.errors import ConfigurationError

_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,63}")
"""Wider than AWS's own rule: old buckets and compatible stores have capitals and underscores."""


@dataclass(frozen=True, slots=True)
class S3Uri:
    """A bucket and a key prefix, which is taken literally: no slash is added or removed, so `a` also covers `ab`."""

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address in `s3://bucket/prefix`. Raises ConfigurationError for anything else."""
        scheme, found, rest = text.partition("://")
        if not found or scheme != "s3":
            raise ConfigurationError(f"{shown(text)} is not an S3 address: write s3://bucket/prefix")
        bucket, _, prefix = rest.partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ConfigurationError(
                f"{shown(text)} names no valid bucket: s3:// and 3 to 63 letters, digits, dots or hyphens (of an access point, the alias)"
            )
        if not prefix.isprintable():
            raise ConfigurationError(f"{shown(text)} has control characters in its prefix: remove them")
        return cls(bucket, prefix)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


_SECRETS = re.compile(
    r"(?P<name>://)[^/\s@]+@"
    r"|(?P<parameter>(?:X-Amz-(?:Credential|Signature|Security-Token)|AWSAccessKeyId|Signature)=)[^&\s\"']+"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12,}",
    re.IGNORECASE,
)
_SHOWN_CHARACTERS = 300


def shown(text: str) -> str:
    """Text from elsewhere as it may stand in a sentence: one line, not endless, without the parts that could be credentials."""
    line = " ".join(text.split()).rstrip(".")
    safe = _SECRETS.sub(lambda match: f"{match['name'] or match['parameter'] or ''}...", line)
    return safe if len(safe) <= _SHOWN_CHARACTERS else f"{safe[:_SHOWN_CHARACTERS]}..."
