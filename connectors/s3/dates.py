"""Dates of S3: what its answers say of objects, and what time it is there."""

from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore.utils import parse_timestamp

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def read_date(written: Any) -> datetime:
    """A date of an answer: as headers have it, which take botocore twenty times as long, or in any way that it reads, numbers among them.

    Raises ValueError.
    """
    found: datetime = (_date_of_header(written) if isinstance(written, str) else None) or parse_timestamp(written)
    return found


def tell_dates(client: "S3Client", told: Callable[[datetime], None]) -> None:
    """Tell the Date of each answer that a client gets from now on, in the thread that has asked. It is exact to a second."""

    def answered(http_response: Any, **_: Any) -> None:
        if (date := _date_of_header(http_response.headers.get("date", ""))) is not None:
            told(date)

    client.meta.events.register("after-call.s3", answered)


def _date_of_header(text: str) -> datetime | None:
    """A date with its time zone as HTTP has it; None where a store writes it in its own way."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return None if date.tzinfo is None else date
