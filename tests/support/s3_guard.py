"""AWS's side of an IAM policy, before a local S3: what no statement allows is answered with 403."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, unquote

DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_LITERAL = re.compile(r"\$\{([*?$])\}")


class Guard:
    """A WSGI application that lets through to another what a policy allows; `used` and `denied` have each action that was asked for."""

    def __init__(self, app: Callable[..., Iterable[bytes]], policy: dict[str, Any]) -> None:
        self.app = app
        self.policy = policy
        self.used: set[str] = set()
        self.denied: list[tuple[str, str]] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        bucket, _, key = unquote(environ["PATH_INFO"].encode("latin-1").decode()).lstrip("/").partition("/")
        query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        action = action_of(environ["REQUEST_METHOD"], key, query)
        prefix = query.get("prefix", [""])[0] if action == "s3:ListBucket" else None
        if not self.allows(action, bucket, key, prefix):
            self.denied.append((action, f"{bucket}/{key}"))
            return refuse(start_response)
        self.used.add(action)
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"} or not key:
            return self.app(environ, start_response)
        return self._reading(bucket, environ, start_response)

    def _reading(self, bucket: str, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Whoever may not list a bucket is not told that an object does not exist."""
        told: list[Any] = []
        body = self.app(environ, lambda *said, **_: told.append(said))
        if told[0][0].startswith("404") and not self.allows("s3:ListBucket", bucket, "", None):
            self.denied.append(("s3:ListBucket", bucket))
            return refuse(start_response)
        start_response(*told[0])
        return body

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let everything through while the block runs: for what others put there."""
        policy, self.policy = self.policy, {"Statement": [{"Action": ["s3:PutObject"], "Resource": ["*"]}]}
        yield
        self.policy = policy

    def allows(self, action: str, bucket: str, key: str, prefix: str | None) -> bool:
        arn = f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}"
        return any(
            action in statement["Action"]
            and any(matches(resource, arn) for resource in statement["Resource"])
            and conditions_hold(statement.get("Condition", {}), prefix)
            for statement in self.policy["Statement"]
        )


def conditions_hold(conditions: dict[str, dict[str, list[str]]], prefix: str | None) -> bool:
    for operator, keys in conditions.items():
        assert operator in {"StringLike", "StringLikeIfExists"}, operator
        assert keys.keys() == {"s3:prefix"}
        if prefix is None and operator == "StringLike":
            return False
        if prefix is not None and not any(matches(pattern, prefix) for pattern in keys["s3:prefix"]):
            return False
    return True


def matches(pattern: str, text: str) -> bool:
    """Whether a text is like a pattern of IAM: * and ? are wild, and nothing else is."""
    escaped = _LITERAL.sub(lambda found: f"\x00{ord(found[1])}\x00", pattern).replace("[", "[[]")
    return fnmatchcase(text, re.sub(r"\x00(\d+)\x00", lambda found: f"[{chr(int(found[1]))}]", escaped))


def action_of(method: str, key: str, query: dict[str, list[str]]) -> str:
    if not key:
        return {"GET": "s3:ListBucket", "HEAD": "s3:ListBucket", "PUT": "s3:CreateBucket", "DELETE": "s3:DeleteBucket"}.get(
            method, "s3:DeleteObject"
        )
    if method in {"GET", "HEAD"}:
        return "s3:GetObjectVersion" if "versionId" in query else "s3:GetObject"
    if method == "DELETE":
        return "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"
    return "s3:PutObject"


def refuse(start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(DENIED)))])
    return [DENIED]
