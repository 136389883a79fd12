"""What happened in one session, an entry an event: enough to replay it into a ClientSession, without audio and without the key.

As text a transcript is JSON lines. Received text is what the session was given, redacted by then.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import msgspec

from moderation.endpoints import ENDPOINTS, Endpoint
from moderation.formats import StreamParameters
from moderation.session import ClientSession


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, tag=str.lower, tag_field="event"):
    """One thing that happened."""


class Opened(Entry, frozen=True):
    """The session began: always the first entry. endpoint is its name; expected_ms as in ClientSession."""

    endpoint: str
    parameters: StreamParameters
    expected_ms: int | None = None


class Sent(Entry, frozen=True):
    """So many bytes of audio went out."""

    size: int


class Ended(Entry, frozen=True):
    """The end of the stream was sent."""


class Received(Entry, frozen=True):
    """A message of the service came; text has a character a byte where it was binary."""

    text: str
    binary: bool = False


class Garbled(Entry, frozen=True):
    """What came was no WebSocket message."""

    complaint: str


class Stalled(Entry, frozen=True):
    """A deadline passed."""


class Closed(Entry, frozen=True):
    """The service, or the network, ended the connection."""

    code: int | None
    reason: str | None = None


_KINDS: TypeAlias = Opened | Sent | Ended | Received | Garbled | Stalled | Closed
_DECODER = msgspec.json.Decoder(_KINDS)


class RecordedSession(ClientSession):
    """A client's session that tells whatever it is told, and its beginning, to `tell`."""

    def __init__(
        self, endpoint: Endpoint, parameters: StreamParameters, *, expected_ms: int | None = None, tell: Callable[[Entry], object]
    ) -> None:
        super().__init__(endpoint, parameters, expected_ms=expected_ms)
        self._tell = tell
        tell(Opened(endpoint.name, parameters, expected_ms))

    def sending(self, size: int) -> None:
        """As ClientSession.sending."""
        self._tell(Sent(size))
        super().sending(size)

    def end_of_stream(self) -> None:
        """As ClientSession.end_of_stream."""
        self._tell(Ended())
        super().end_of_stream()

    def receive(self, text: str | bytes) -> None:
        """As ClientSession.receive."""
        self._tell(Received(text) if isinstance(text, str) else Received(text.decode("latin-1"), binary=True))
        super().receive(text)

    def garbled(self, complaint: str) -> None:
        """As ClientSession.garbled."""
        self._tell(Garbled(complaint))
        super().garbled(complaint)

    def stalled(self) -> None:
        """As ClientSession.stalled."""
        self._tell(Stalled())
        super().stalled()

    def closed(self, code: int | None, reason: str | None = None) -> None:
        """As ClientSession.closed."""
        self._tell(Closed(code, reason))
        super().closed(code, reason)


def replay(transcript: Iterable[Entry], endpoints: Mapping[str, Endpoint] = ENDPOINTS) -> ClientSession:
    """A session that is told what the transcript tells. Raises ValueError where it does not begin with a session of a known endpoint."""
    entries = iter(transcript)
    first = next(entries, None)
    if not isinstance(first, Opened) or first.endpoint not in endpoints:
        raise ValueError(f"a transcript begins with a session of {', '.join(endpoints)}, not with {first}")
    session = ClientSession(endpoints[first.endpoint], first.parameters, expected_ms=first.expected_ms)
    for entry in entries:
        _tell(session, entry)
    return session


def _tell(session: ClientSession, entry: Entry) -> None:
    match entry:
        case Sent(size=size):
            session.sending(size)
        case Ended():
            session.end_of_stream()
        case Received(text=text, binary=binary):
            session.receive(text.encode("latin-1") if binary else text)
        case Garbled(complaint=complaint):
            session.garbled(complaint)
        case Stalled():
            session.stalled()
        case Closed(code=code, reason=reason):
            session.closed(code, reason)
        case _:
            raise ValueError(f"a session is opened once: {entry}")


def to_line(entry: Entry) -> bytes:
    """The entry as a line of a file."""
    return msgspec.json.encode(entry) + b"\n"


def from_lines(lines: Iterable[bytes | str]) -> list[Entry]:
    """The entries of a file. Raises ValueError for a line that is none."""
    return [_DECODER.decode(line) for line in lines]
