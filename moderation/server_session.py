"""One streaming session as its server sees it, a state machine without I/O (seed pages, 'Protocol').

`ServerSession` is told what the client sent and what the analysis found, and says what to do next. Its other half is in session.py.
"""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from moderation.messages import Done, ErrorMessage, Item, Shape, encode
from moderation.session import NORMAL_CLOSE

UNSUPPORTED_DATA = 1003


class ServerState(StrEnum):
    """Where a server's session stands."""

    RECEIVING = "receiving"
    FINISHING = "finishing"
    """The client has ended the stream; what is left is analysed."""
    CLOSED = "closed"


class ServerEvent(StrEnum):
    """What can happen to a server's session."""

    AUDIO = "audio"
    END = "end"
    """The client's empty text."""
    ITEM = "item"
    DONE = "done"
    REFUSAL = "refusal"


SERVER_TRANSITIONS: dict[tuple[ServerState, ServerEvent], ServerState] = {
    (ServerState.RECEIVING, ServerEvent.AUDIO): ServerState.RECEIVING,
    (ServerState.RECEIVING, ServerEvent.END): ServerState.FINISHING,
    (ServerState.RECEIVING, ServerEvent.ITEM): ServerState.RECEIVING,
    (ServerState.RECEIVING, ServerEvent.DONE): ServerState.CLOSED,
    (ServerState.RECEIVING, ServerEvent.REFUSAL): ServerState.CLOSED,
    (ServerState.FINISHING, ServerEvent.ITEM): ServerState.FINISHING,
    (ServerState.FINISHING, ServerEvent.DONE): ServerState.CLOSED,
    (ServerState.FINISHING, ServerEvent.REFUSAL): ServerState.CLOSED,
}
"""What is not in this table cannot happen: a client that does it is refused, and after the close nothing is said any more."""


class Feed(msgspec.Struct, frozen=True):
    """Analyse these bytes."""

    audio: bytes


class Finish(msgspec.Struct, frozen=True):
    """No more audio will come."""


class Send(msgspec.Struct, frozen=True):
    """Send this text message."""

    text: str


class Close(msgspec.Struct, frozen=True):
    """Close the connection with this code."""

    code: int


Action: TypeAlias = Feed | Finish | Send | Close


class ServerSession:
    """A server's view of one session: told what the client sent and what the analysis found, it says what to do next.

    shape is the form in which items are sent: null where it has a measurement that an item lacks.
    """

    def __init__(self, shape: Shape | None = None) -> None:
        self.shape = shape
        self.state = ServerState.RECEIVING

    def receive(self, message: str | bytes) -> list[Action]:
        """Take one message of the client: audio, or the empty text that ends it."""
        action: Action
        if isinstance(message, bytes):
            event, action = ServerEvent.AUDIO, Feed(message)
        elif not message:
            event, action = ServerEvent.END, Finish()
        else:
            return self.refuse(UNSUPPORTED_DATA, "Expected audio as binary frames, or an empty text frame to end the stream")
        if (self.state, event) not in SERVER_TRANSITIONS:
            return self.refuse(UNSUPPORTED_DATA, "Nothing may follow the end of the stream")
        return self._on(event, action)

    def found(self, message: Item | Done) -> list[Action]:
        """Send on what the analysis found; after done, close."""
        sent = Send(encode(message, self.shape))
        return self._on(ServerEvent.ITEM, sent) if isinstance(message, Item) else self._on(ServerEvent.DONE, sent, Close(NORMAL_CLOSE))

    def refuse(self, code: int, text: str) -> list[Action]:
        """An error message, then the close (seed pages, 'WebSocket close codes')."""
        return self._on(ServerEvent.REFUSAL, Send(encode(ErrorMessage(text))), Close(code))

    def _on(self, event: ServerEvent, *actions: Action) -> list[Action]:
        if (reached := SERVER_TRANSITIONS.get((self.state, event))) is None:
            return []
        self.state = reached
        return list(actions)
