"""One streaming session as its server sees it, a state machine without I/O (seed pages, 'Protocol').

`ServerSession` is told what the client sent and what the analysis found, and says what to do next. Its other half is in session.py.
"""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from moderation.messages import Done, ErrorMessage, Item, encode
from moderation.session import NORMAL_CLOSE

UNSUPPORTED_DATA = 1003


class ServerState(StrEnum):
    """Where a server's session stands."""

    RECEIVING = "receiving"
    FINISHING = "finishing"
    """The client has ended the stream; what is left is analysed."""
    CLOSED = "closed"


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
    """A server's view of one session: told what the client sent and what the analysis found, it says what to do next."""

    def __init__(self) -> None:
        self.state = ServerState.RECEIVING

    def receive(self, message: str | bytes) -> list[Action]:
        """Take one message of the client: audio, or the empty text that ends it."""
        if self.state is ServerState.CLOSED:
            return []
        if self.state is ServerState.FINISHING:
            return self.refuse(UNSUPPORTED_DATA, "Nothing may follow the end of the stream")
        if isinstance(message, bytes):
            return [Feed(message)]
        if message:
            return self.refuse(UNSUPPORTED_DATA, "Expected audio as binary frames, or an empty text frame to end the stream")
        self.state = ServerState.FINISHING
        return [Finish()]

    def found(self, message: Item | Done) -> list[Action]:
        """Send on what the analysis found; after done, close."""
        if self.state is ServerState.CLOSED:
            return []
        if isinstance(message, Item):
            return [Send(encode(message))]
        self.state = ServerState.CLOSED
        return [Send(encode(message)), Close(NORMAL_CLOSE)]

    def refuse(self, code: int, text: str) -> list[Action]:
        """An error message, then the close (seed pages, 'WebSocket close codes')."""
        if self.state is ServerState.CLOSED:
            return []
        self.state = ServerState.CLOSED
        return [Send(encode(ErrorMessage(text))), Close(code)]
