"""Notices to people: one JSON object a cause, posted to a webhook, or written to the log where there is none."""

import logging
from dataclasses import asdict, dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp

from moderation.errors import ConfigurationError

POST_SECONDS = 10.0
"""How long a webhook may take to answer: a run that has ended waits no longer for it."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
logger = logging.getLogger("soundcheck.notices")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person should know: the cause is a word, such as a stop's name; the exit code that of a run that has ended.

    run_id is None where no run could begin.
    """

    org: str
    cause: str
    run_id: str | None
    message: str
    exit_code: int | None = None

    @property
    def text(self) -> str:
        """The notice in one sentence, under the name that chat tools show."""
        ended = "" if self.exit_code is None else f" (exit code {self.exit_code})"
        where = "before a run began" if self.run_id is None else f"in run {self.run_id}"
        return f"soundcheck, {self.org}: {self.cause}{ended} {where}: {self.message}"


class Notices:
    """The way to the people of an organisation. A notice that cannot be delivered is a line in the log, and never an error.

    url is an https:// address (http:// on loopback alone); its path and query are its token, which nothing shows. None is the log.
    Raises ConfigurationError for another.
    """

    def __init__(self, url: str | None) -> None:
        if url is not None:
            _check(url)
        self._url = url

    async def send(self, notice: Notice) -> bool:
        """Deliver a notice, within ten seconds; whether that went well."""
        why = None if self._url is None else await _post(self._url, notice)
        if self._url is None:
            logger.log(logging.WARNING if notice.exit_code is None else logging.ERROR, "%s", notice.text)
        elif why is not None:
            logger.warning("a notice was not delivered to %s (%s): %s", _host(self._url), why, notice.text)
        return why is None


async def _post(url: str, notice: Notice) -> str | None:
    """What went wrong, if anything did, in words that hold nothing of the address."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=POST_SECONDS), cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(url, json=asdict(notice) | {"text": notice.text}, allow_redirects=False) as answer,
        ):
            return None if answer.status < HTTPStatus.MULTIPLE_CHOICES else f"HTTP {answer.status}"
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        return type(error).__name__


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        private = bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK))
    except ValueError:
        private = False
    if not private:
        raise ConfigurationError("notify_url: give https://host/..., or http://127.0.0.1:PORT/... for one on this machine")


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
