"""One page of S3's list API: asked by boto3, which signs, retries and explains, and read by ourselves in a fraction of its time.

boto3 spends most of a listing on building dictionaries from the XML of its pages (docs/decisions.md). A hook before its parser takes a
page away and leaves it an empty one; answers that are no page stay with boto3, which knows what they mean.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus
from xml.parsers import expat

from moderation.catalogue import AudioObject
from moderation.errors import UnreachableError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ROOT = "ListBucketResult"
_EMPTY = f"<{_ROOT}/>".encode()
_OK = 200
_OURS = "SoundcheckPage"
_asking = threading.local()
"""Whether the call that this thread makes is one of ours: others with the same client get their dictionaries."""


@dataclass(frozen=True, slots=True)
class ListPage:
    """What a page shows, in the order of the store: objects, and folders where it was asked with a delimiter.

    token asks for the next page; None with the last one.
    """

    items: list[AudioObject]
    folders: list[str]
    token: str | None


def prepare(client: "S3Client") -> None:
    """Let `list_page` use a client; everything else it does stays as it is."""
    client.meta.events.register("before-parse.s3.ListObjectsV2", _take_page, unique_id="soundcheck-list-page")


def list_page(client: "S3Client", bucket: str, **request: Any) -> ListPage:
    """A page of a bucket; request is as for boto3's list_objects_v2. Raises what boto3 does."""
    _asking.bucket = bucket
    try:
        answer: Mapping[str, Any] = client.list_objects_v2(Bucket=bucket, EncodingType="url", **request)
    finally:
        _asking.bucket = None
    if _OURS not in answer:
        raise UnreachableError(f"listing s3://{bucket} failed: the answer is no listing: check the S3 endpoint")
    page: ListPage = answer[_OURS]
    return page


def _take_page(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    bucket = getattr(_asking, "bucket", None)
    if bucket is None or response_dict["status_code"] != _OK:
        return
    # boto3 has looked before: what broke off it takes for a fault of the server, and asks again
    if (page := parse_page(bucket, response_dict["body"])) is not None:
        customized_response_dict[_OURS] = page
        response_dict["body"] = _EMPTY


def parse_page(bucket: str, xml: bytes) -> ListPage | None:
    """The page in the body of an answer; None where it is something else. Raises ExpatError."""
    reader = _Reader()
    reader.read(xml)
    if reader.root != _ROOT:
        return None
    encoded = reader.facts.get("EncodingType") == "url"
    items = [_object(bucket, entry, encoded=encoded) for entry in reader.objects]
    return ListPage(items, [_decoded(name) if encoded else name for name in reader.folders], reader.facts.get("NextContinuationToken"))


class _Reader:
    """Takes the texts out of a page as they come: a tree of it would keep the garbage collector busier than the parser."""

    def __init__(self) -> None:
        self.root = ""
        self.facts: dict[str, str] = {}
        self.objects: list[dict[str, str]] = []
        self.folders: list[str] = []
        self._entry = self.facts
        self._text = ""

    def read(self, xml: bytes) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.CharacterDataHandler = self._data
        parser.EndElementHandler = self._end
        parser.Parse(xml, True)

    def _start(self, name: str, _: dict[str, str]) -> None:
        self.root = self.root or name
        self._text = ""
        if name in {"Contents", "CommonPrefixes"}:
            self._entry = {}

    def _data(self, text: str) -> None:
        self._text += text

    def _end(self, name: str) -> None:
        if name == "Contents":
            self.objects.append(self._entry)
        elif name == "CommonPrefixes":
            self.folders.append(self._entry["Prefix"])
        else:
            self._entry[name] = self._text
            return
        self._entry = self.facts


def _object(bucket: str, entry: Mapping[str, str], *, encoded: bool) -> AudioObject:
    key = entry["Key"]
    return AudioObject(
        bucket,
        _decoded(key) if encoded else key,
        entry["ETag"].strip('"'),
        int(entry["Size"]),
        datetime.fromisoformat(entry["LastModified"]),
        None,
        entry.get("StorageClass"),
    )


def _decoded(text: str) -> str:
    """S3 writes a space as `+` (issue 2654 of boto). Most keys have nothing to decode."""
    return unquote_plus(text) if "%" in text or "+" in text else text
