"""What time it is by S3: every answer says so."""

from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


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
