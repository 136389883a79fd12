"""Identities: names computed from what a thing is, so that two hosts give the same one (design.md section 7)."""

import hashlib
from datetime import UTC, datetime

_DIGEST_BYTES = 16


def object_id(bucket: str, key: str, etag: str) -> str:
    """The identity of one version of an object: 32 hex digits. An overwritten object is another one."""
    return _digest(bucket, key, etag)


def object_key_id(bucket: str, key: str) -> str:
    """The identity of a place in a bucket, whatever lies there: 32 hex digits."""
    return _digest(bucket, key)


def params_hash(**parameters: object) -> str:
    """The identity of everything that changes a result (audio parameters, transcoding): 16 hex digits."""
    return _digest(*(f"{name}={value}" for name, value in sorted(parameters.items())))[:16]


def lake_id(results_url: str) -> str:
    """The identity of a result lake: 16 hex digits. What is done in one lake is not done in another."""
    return _digest(results_url.rstrip("/"))[:16]


def session_id(now: datetime, chance: bytes) -> str:
    """A UUIDv7 (RFC 9562, section 5.7): sorted by time. `chance` is ten random bytes."""
    head = int(now.timestamp() * 1000).to_bytes(6, "big")
    body = bytearray(head + chance[:10])
    body[6] = 0x70 | body[6] & 0x0F
    body[8] = 0x80 | body[8] & 0x3F
    text = body.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def run_id(now: datetime, chance: bytes) -> str:
    """A run's name: its start in UTC and six random hex digits, readable and sorted by time."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{chance[:3].hex()}"


def event_id(*parts: str) -> str:
    """The identity of something that is told, by what makes it the same when it is told again: 32 hex digits."""
    return _digest("event", *parts)


def _digest(*parts: str) -> str:
    """128-bit blake2b over length-prefixed parts, so that ('ab', 'c') and ('a', 'bc') differ."""
    told = b""
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        told += len(data).to_bytes(8, "big") + data
    return hashlib.blake2b(told, digest_size=_DIGEST_BYTES).hexdigest()
