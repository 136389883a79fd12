"""Rows of the fault catalogue as sessions: what the local server does to one, and what its client has to make of that."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from canary import CANARY
from connectors.local_velma.organisation import Organisation
from connectors.velma import VelmaClient
from moderation.endpoints import Endpoint
from moderation.errors import SessionError
from moderation.formats import StreamParameters
from moderation.pacing import Deadlines
from moderation.refusals import Cause
from moderation.results import Flag, SessionResult
from velma_services import MUSIC, RAW, SECOND, canary_client_of, pieces

AUDIO = bytes(2 * SECOND)
"""Ten frames of music, nearly."""
LONG = bytes(600 * SECOND)
"""More than fits into all buffers on the way, so that the upload goes on when the server does something."""
PATIENT = Deadlines(connect_s=20, progress_s=20, done_s=20, error_s=20, close_s=1)
"""No fault is ended by one of these before a test would fail for its length."""


@dataclass(frozen=True)
class Row:
    """A session with faults: rows of the catalogue, the spec, and what is different about the session."""

    rows: tuple[int, ...]
    spec: str
    audio: bytes = field(default=AUDIO, repr=False)
    endpoint: Endpoint = MUSIC
    parameters: StreamParameters = RAW
    deadlines: Deadlines = PATIENT
    organisation: dict[str, Any] = field(default_factory=dict)
    """What is different about the organisation, which else has the canary for its key and no limit."""

    @property
    def name(self) -> str:
        """For the report of a test."""
        return "-".join([*map(str, self.rows), self.spec[:60], *self.organisation])

    async def session(self, velma) -> SessionResult:
        """What comes of it; no variable here holds the key."""
        prepare(velma.organisation, self.organisation)
        velma.faults.queue(self.spec)
        client: VelmaClient = canary_client_of(velma.url, deadlines=self.deadlines)
        return await client.analyse(self.endpoint, self.parameters, pieces(self.audio, 1 << 16))

    async def failure(self, velma) -> SessionError:
        """How it fails."""
        try:
            result = await self.session(velma)
        except SessionError as failure:
            return failure
        raise AssertionError(f"it gave a result: {result}")


@dataclass(frozen=True)
class Failing(Row):
    """A session that has to fail, for this cause and with these facts."""

    cause: Cause | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept(Row):
    """A session whose result has to be kept, with these flags and what else `looks` finds right."""

    flags: frozenset[Flag] = frozenset()
    looks: Callable[[SessionResult], object] = lambda _: None


def prepare(organisation: Organisation, different: dict[str, Any]) -> None:
    """Let the canary in, unless something else is wanted."""
    organisation.add_key(CANARY)
    for name, value in different.items():
        setattr(organisation, name, value)
