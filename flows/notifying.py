"""Who is told what of a run: each cause once for an organisation, until a run of it completes; a cap that is nearly spent once a month."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Self

from connectors.ledger import Ledger
from connectors.letters import Letters
from connectors.notices import Notice, Notices
from flows.places import open_ledger
from flows.report import state_name
from flows.settings import Settings
from moderation.admission import EVERY_ENDPOINT, Claim, Grant, Refusal
from moderation.breaker import OpenedBy
from moderation.errors import SoundcheckError
from moderation.outcomes import ExitCode, StopCause

MANY_QUARANTINED = "ManyQuarantined"
"""The cause of a run that completes with 65."""
CAUSES = (*(cause.value for cause in StopCause if cause is not StopCause.TERMINATED), MANY_QUARANTINED)
"""What ends a run and is to be told; who sends a signal knows."""
OF_THE_SERVICE = frozenset({StopCause.ACCESS_DENIED, StopCause.CREDITS_EXHAUSTED, StopCause.SERVICE_UNREACHABLE})
"""Causes that only a run with sessions shows to be over: one that has nothing to stream completes whatever the service says."""
SUSPENDED = "credits or monthly hours are used up: the run waits until there are some again, and then goes on by itself"
logger = logging.getLogger("soundcheck.notices")


def notices_of(settings: Settings) -> Notices:
    """The way to the people of an organisation. Raises ConfigurationError for an address that is none."""
    url, secret = (None if each is None else each.get_secret_value() for each in (settings.notify_url, settings.notify_secret))
    people = [address.get_secret_value() for address in settings.notify_people]
    return Notices(url, secret=secret, people=people, letters=letters_of(settings))


def letters_of(settings: Settings) -> Letters:
    """What is on its way to those people, and what nobody took."""
    return Letters(settings.state_folder() / "notices")


@asynccontextmanager
async def failed_start_told(settings: Settings) -> AsyncIterator[None]:
    """Tell an error that keeps a run from beginning, once as others are where the ledger can be asked.

    Nobody is told where there is no address: whoever started it has the error itself.
    """
    try:
        yield
    except SoundcheckError as error:
        if (cause := state_name(error)) in CAUSES:
            own = settings.of(settings.org) if settings.org in settings.organisations else settings
            if not (notices := notices_of(own)).dry:
                notice = Notice(own.org, cause, None, str(error), error.exit_code)
                try:
                    async with open_ledger(own) as ledger:
                        await tell_once(ledger, notices, notice)
                except SoundcheckError:
                    await notices.send(notice)
        raise


async def tell_once(ledger: Ledger, notices: Notices, notice: Notice) -> None:
    """Tell people of a cause if they have not been told, on whichever host; what nobody takes is news when it comes again.

    The letters are on disk before the ledger hears of it: a process that dies in between leaves them.
    """
    mail = await notices.write_notice(notice)
    try:
        first = await ledger.first_notice(notice.org, notice.cause)
    except SoundcheckError as error:  # told twice is better than never
        logger.warning("the ledger does not say whether %s was told before: %s", notice.cause, error)
        first = True
    if not first:
        await notices.take_back(mail)
    elif not await notices.deliver(mail, notice):
        await forget(ledger, notice.org, [notice.cause])


async def forget(ledger: Ledger, org: str, causes: Collection[str]) -> None:
    """Let these be news when they come again."""
    try:
        await ledger.clear_notices(org, causes)
    except SoundcheckError as error:
        logger.warning("what was told before is not cleared, so the next stop may not be told: %s", error)


class Notifier:
    """Tells the people of an organisation about one run. The ledger knows what they were told before, whichever host did."""

    def __init__(self, ledger: Ledger, notices: Notices, org: str, run_id: str, warn_share: float, *, suspends: bool = False) -> None:
        self._ledger = ledger
        self._notices = notices
        self._org = org
        self._run_id = run_id
        self._warn_share = warn_share
        self._suspends = suspends
        self._begun: set[str] = set()
        self._telling: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def until_told(self) -> AsyncIterator[Self]:
        """Wait at the end of the block for the notices that are still on their way."""
        try:
            yield self
        finally:
            await asyncio.gather(*self._telling)

    def granted(self, claim: Claim, grant: Grant) -> None:
        """Take note of an admission: the first that takes a cap over the share that is warned of is told, while its session goes on."""
        for cap in grant.spent:
            if cap.share >= self._warn_share:
                cause = f"budget_{self._warn_share:.0%}:{cap.endpoint}:{cap.unit}:{claim.month}".replace("%", "")
                whose = "" if cap.endpoint == EVERY_ENDPOINT else f" for {cap.endpoint}"
                taken = f"{cap.share:.0%} of the cap in {cap.unit}{whose} of {claim.month} is spent or reserved"
                self._begin_to_tell(cause, f"{taken}: raise it, or sessions stop when it is reached")

    def refused(self, refusal: Refusal) -> None:
        """Take note that nobody is let in: a run that waits for credits instead of ending has no end that could be told."""
        if self._suspends and refusal.opened_by is OpenedBy.QUOTA:
            self._begin_to_tell(StopCause.CREDITS_EXHAUSTED, SUSPENDED)

    def _begin_to_tell(self, cause: str, message: str) -> None:
        if cause not in self._begun:
            self._begun.add(cause)
            self._telling.add(asyncio.create_task(self._tell(cause, message)))

    async def ended(self, cause: str, exit_code: ExitCode, message: str) -> None:
        """Tell how a run ended, where that is for people to know."""
        if cause in CAUSES:
            await self._tell(cause, message, exit_code)

    async def completed(self, exit_code: ExitCode, quarantined: int, *, streamed: bool) -> None:
        """Tell of a run that completed with too much quarantined; any other cause that it shows to be over is news when it comes again."""
        over = set(CAUSES) if streamed else set(CAUSES) - OF_THE_SERVICE
        if exit_code is ExitCode.MANY_QUARANTINED:
            over.remove(MANY_QUARANTINED)
            message = (
                f"{quarantined} objects were newly quarantined: something general is wrong, ask for quarantined_now with soundcheck sql"
            )
            await self._tell(MANY_QUARANTINED, message, exit_code)
        await forget(self._ledger, self._org, over)

    async def _tell(self, cause: str, message: str, exit_code: ExitCode | None = None) -> None:
        await tell_once(self._ledger, self._notices, Notice(self._org, cause, self._run_id, message, exit_code))
