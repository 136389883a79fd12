"""The local Velma server as a command: listens on loopback until it is told to end."""

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import NOTICE, local_velma
from flows.console import say_json, stdout
from flows.stopping import SIGNALS
from moderation.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the local server is to be. Hours are audio-hours; None is no limit."""

    port: int
    api_keys: tuple[str, ...]
    max_connections: int | None
    monthly_hours: float | None
    credit_hours: float | None
    journal: Path | None
    detector: str


async def serve(options: ServeOptions, *, as_json: bool) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigurationError when the port is taken or the journal cannot be written."""
    organisation = Organisation(
        api_keys=frozenset(options.api_keys),
        max_connections=options.max_connections,
        monthly_hours=options.monthly_hours,
        credit_hours=options.credit_hours,
        live=Counter(),
    )
    ended = asyncio.Event()
    for name in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    with _journal(options.journal) as journal:
        try:
            async with local_velma(organisation, port=options.port, journal=journal, detector=options.detector) as server:
                _say_where(server.url, as_json=as_json)
                await ended.wait()
        except OSError as error:
            raise ConfigurationError(f"cannot listen on port {options.port}: {error.strerror}") from error


def _journal(path: Path | None) -> Journal:
    try:
        return Journal(path)
    except OSError as error:
        raise ConfigurationError(f"the journal {path} cannot be written: {error.strerror}") from error


def _say_where(url: str, *, as_json: bool) -> None:
    if as_json:
        say_json({"url": url, "pid": os.getpid(), "notice": NOTICE})
    else:
        stdout.print(f"{NOTICE}\nlistening on {url} (Ctrl-C ends it)", highlight=False)
