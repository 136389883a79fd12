"""Dates of S3: what its answers say of objects, and what time it is there."""

from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore.utils import parse_timestamp

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def read_date(text: str) -> datetime:
    """A date of an answer: as headers have it, which take botocore twenty times as long, or in any way that it reads. Raises ValueError."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError, AttributeError):
        date = None
    found: datetime = parse_timestamp(text) if date is None or date.tzinfo is None else date
    return found


def tell_dates(client: "S3Client", told: Callable[[datetime], None]) -> None:
    """Tell the Date of each answer that a client gets from now on, in the thread that has asked. It is exact to a second."""

    def answered(http_response: Any, **_: Any) -> None:
        try:
            date = parsedate_to_datetime(http_response.headers["date"])
        except (KeyError, ValueError, TypeError):  # a store may have none, or write it in its own way
            return
        if date.tzinfo is not None:
            told(date)

    client.meta.events.register("after-call.s3", answered)
