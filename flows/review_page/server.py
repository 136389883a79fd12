"""The review page as a command: it listens until it is told to end."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from connectors.audio_store import AudioStores, S3AudioStore
from connectors.s3 import S3Settings, s3_client
from flows.console import say_json, shown, stderr, stdout
from flows.notifying import notices_of
from flows.person import who
from flows.places import results_of
from flows.results import opened
from flows.review_page.guard import ENTER, LOOPBACK_NAMES, Guard
from flows.review_page.handlers import ReviewPage
from flows.settings import Settings
from flows.stopping import SIGNALS
from flows.telling import tell_changes
from flows.wiring import now
from moderation.errors import ConfigurationError
from moderation.identity import run_id
from tasks.desk import LOOKED_AT, Desk
from tasks.records import Run

HINT = "open this address in a browser (Ctrl-C ends it): whoever has it can listen and answer"
SECRET_BYTES = 32
LONGEST_END_S = 2.0
"""For what is being played when the server ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """What the server of a review page is to be: of which objects, by whom they are answered, and where it listens."""

    where: str | None = None
    reviewer: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    remote: bool = False

    def check(self) -> None:
        """Raise ConfigurationError for an address that others reach, where that is not wanted in so many words."""
        if self.host not in LOOPBACK_NAMES and not self.remote:
            raise ConfigurationError(
                f"{self.host} may be reached from other machines, and what passes is not encrypted: leave --host out and come through "
                "a tunnel (ssh -L), or add --remote"
            )


@dataclass(frozen=True, slots=True)
class Listening:
    """A running server: its address, and the token that opens it."""

    url: str
    token: str = field(repr=False)

    @property
    def entrance(self) -> str:
        """The address that lets a browser in."""
        return f"{self.url}{ENTER}?token={self.token}"


@asynccontextmanager
async def review_page(settings: Settings, options: PageOptions) -> AsyncIterator[Listening]:
    """A review page over the results of one organisation's settings, for as long as the block runs.

    Raises ConfigurationError for a wrong address, no results or a port that is taken, QueryError for a wrong predicate.
    """
    options.check()
    store, open_lake = opened(settings)
    desk = Desk(store, open_lake, settings.org, options.where or LOOKED_AT)
    await asyncio.to_thread(desk.read)
    token, notices = secrets.token_urlsafe(SECRET_BYTES), notices_of(settings)
    async with S3AudioStore(s3_client(S3Settings())) as in_s3:
        page = ReviewPage(
            desk,
            AudioStores(in_s3),
            options.reviewer or who(),
            settings.org,
            lambda at: Run(run_id(at, secrets.token_bytes(3)), settings.org, at),
            lambda: tell_changes(notices, store, open_lake, settings.org, now()),
            now,
        )
        application = page.application(Guard(token, options.host if options.remote else None))
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=LONGEST_END_S)
        await runner.setup()
        try:
            await _listen(runner, options)
            yield Listening(f"http://{_in_url(options.host)}:{runner.addresses[0][1]}", token)
        finally:
            await runner.cleanup()


async def serve_review(settings: Settings, options: PageOptions, *, as_json: bool) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises as `review_page`."""
    ended = asyncio.Event()
    for name in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    stderr.print(shown(f"reading {results_of(settings)} ..."), style="dim", soft_wrap=True)
    async with review_page(settings, options) as server:
        if as_json:
            say_json({"url": server.entrance, "pid": os.getpid()})
        else:
            stdout.print(server.entrance, highlight=False, soft_wrap=True, markup=False)
            stderr.print(
                "open this address in a browser (Ctrl-C ends it); whoever has it can listen and answer", style="dim", soft_wrap=True
            )
        await ended.wait()


async def _listen(runner: web.AppRunner, options: PageOptions) -> None:
    try:
        await web.TCPSite(runner, options.host, options.port).start()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {options.host}, port {options.port}: {error.strerror}") from error


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
