"""Notices to programs and people: each event as signed JSON to a webhook, and as a sentence to people; without either, to the log."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Concatenate, ParamSpec, TypeAlias
from urllib.parse import urlsplit

import aiohttp

from connectors.letters import Letter, Letters
from connectors.people import Person
from moderation.errors import ConfigurationError
from moderation.events import EVENT_HEADER, SIGNATURE_HEADER, Event, EventKind, pause_s, signature
from moderation.identity import event_id

POST_SECONDS = 10.0
"""How long a webhook may take to answer."""
TRIES = 5
"""How often an event is sent: with the pauses between a run that has ended waits 80 s at most for a receiver that is silent."""
WEBHOOK = "webhook"
NOT_TRIED = "not tried: the one before it was not taken"
_AGAIN = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
logger = logging.getLogger("soundcheck.notices")
P = ParamSpec("P")
Mail: TypeAlias = Sequence[Sequence[Letter]]
"""Letters that belong together, by who gets them."""


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

    def event(self, at: datetime) -> Event:
        """The notice as an event: of a cause in a run there is one."""
        known_by = self.run_id or at.isoformat()
        return Event(event_id("notice", self.org, self.cause, known_by), EventKind.NOTICE, self.org, at, self.text, asdict(self))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a delivery failed, in words that hold nothing of an address; final where trying again would change nothing."""

    why: str
    final: bool = False


class Notices:
    """The ways to those who are told of an organisation. What is not delivered is a line in the log and a dead letter, never an error.

    url is an https:// address (http:// on loopback alone); its path and query are its token, which nothing shows. secret signs what goes
    there. people are addresses of apprise. Without url and people events go to the log alone. Raises ConfigurationError for what is no
    address.
    """

    def __init__(
        self,
        url: str | None,
        *,
        secret: str | None = None,
        people: Sequence[str] = (),
        letters: Letters | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if url is not None:
            _check(url)
        self._url = url
        self._secret = secret
        self._people = {f"people-{number}": Person(address) for number, address in enumerate(people, 1)}
        self._letters = letters
        self._sleep = sleep
        self._chance = chance
        self._now = now

    @property
    def dry(self) -> bool:
        """Whether nobody is told but the log."""
        return self._url is None and not self._people

    async def send(self, notice: Notice) -> bool:
        """Deliver a notice; whether anybody has been told."""
        return await self.deliver(await self.write_notice(notice), notice)

    async def write_notice(self, notice: Notice) -> Mail:
        """Its letters, on disk from now on: they are to be delivered, or taken back."""
        return await self._write([notice.event(self._now())])

    async def deliver(self, mail: Mail, notice: Notice) -> bool:
        """Deliver the letters of a notice; whether anybody has been told."""
        if self.dry:
            logger.log(logging.WARNING if notice.exit_code is None else logging.ERROR, "%s", notice.text)
            return True
        return await self._send_mail(mail)

    async def take_back(self, mail: Mail) -> None:
        """Forget letters: somebody else has told it."""
        for letter in (each for of_one in mail for each in of_one):
            await self._on_disk(Letters.take_back, letter)

    async def send_events(self, events: Sequence[Event]) -> bool:
        """Deliver events that belong together, after all of them are on disk; whether anybody has been told.

        People hear the first one's sentence. A webhook that does not take one is not asked for the rest, which stay as dead letters.
        """
        if self.dry:
            for event in events:
                logger.info("nobody is set to be told (notify_url, notify_people): %s", event.text)
            return True
        return await self._send_mail(await self._write(events))

    async def resend(self, letters: Sequence[Letter]) -> list[Letter]:
        """Send these once more; those that were not taken, or for whom nobody is set any more."""
        known = set(self._receivers)
        left = [letter for letter in letters if letter.to not in known]
        for to in sorted(known):
            own = [letter for letter in letters if letter.to == to]
            taken = [letter for letter in own if await self._deliver(letter)]
            left += [letter for letter in own if letter not in taken]
        return left

    @property
    def _receivers(self) -> list[str]:
        return [*([] if self._url is None else [WEBHOOK]), *self._people]

    async def _write(self, events: Sequence[Event]) -> Mail:
        mail = [[self._letter(event, to) for event in (events if to == WEBHOOK else events[:1])] for to in self._receivers]
        for letter in (each for of_one in mail for each in of_one):
            await self._on_disk(Letters.keep, letter)
        return mail

    async def _send_mail(self, mail: Mail) -> bool:
        return any([await self._send_all(of_one) for of_one in mail])

    def _letter(self, event: Event, to: str) -> Letter:
        return Letter(event.event_id, to, event.org, event.body().decode(), event.text, event.at)

    async def _send_all(self, letters: Sequence[Letter]) -> bool:
        for place, letter in enumerate(letters):
            if not await self._deliver(letter):
                for rest in letters[place + 1 :]:
                    await self._on_disk(Letters.bury, rest, NOT_TRIED)
                return False
        return True

    async def _deliver(self, letter: Letter) -> bool:
        """Send a letter until it is taken, or for as long as there is sense in it."""
        tries = 1
        while (failure := await self._try(letter)) is not None and not failure.final and tries < TRIES:
            await self._sleep(pause_s(tries, self._chance()))
            tries += 1
        if failure is None:
            await self._on_disk(Letters.arrived, letter)
            return True
        await self._on_disk(Letters.bury, letter, failure.why)
        logger.warning("a notice was not delivered to %s (%s): %s", self._name(letter.to), failure.why, letter.text)
        return False

    async def _try(self, letter: Letter) -> Failure | None:
        if letter.to in self._people:
            why = await self._people[letter.to].tell(letter.text, POST_SECONDS)
            return None if why is None else Failure(why)
        assert self._url is not None, "a letter to the webhook has one"
        return await _post(self._url, letter, self._secret)

    def _name(self, to: str) -> str:
        return urlsplit(self._url).hostname or "" if self._url is not None and to == WEBHOOK else to

    async def _on_disk(self, step: Callable[Concatenate[Letters, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        if self._letters is not None:
            await asyncio.to_thread(step, self._letters, *args, **kwargs)


async def _post(url: str, letter: Letter, secret: str | None) -> Failure | None:
    body = letter.body.encode()
    headers = {"Content-Type": "application/json", EVENT_HEADER: letter.event_id}
    if secret is not None:
        headers[SIGNATURE_HEADER] = signature(secret, body)
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=POST_SECONDS), cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            return _judged(answer.status)
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        return Failure(type(error).__name__, final=isinstance(error, ValueError))


def _judged(status: int) -> Failure | None:
    """What an answer means: below 300 it is taken, a redirect is not followed, and of refusals only those that pass are tried again."""
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    return Failure(f"HTTP {status}", final=status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _AGAIN)


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        private = bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK))
    except ValueError:
        private = False
    if not private:
        raise ConfigurationError("notify_url: give https://host/..., or http://127.0.0.1:PORT/... for one on this machine")
