"""A server's session that has faults: what an honest one does, changed where its faults come to their places. No I/O.

Without a fault it is a ServerSession and nothing else.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from connectors.local_velma.faults import Fault, Moment, Role
from connectors.local_velma.faulty_messages import SAYINGS, Frame, changed
from moderation.endpoints import Endpoint
from moderation.messages import Done, Item, encode
from moderation.server_session import Action, Close, Send, ServerSession, ServerState

REVOKED = 4003
PUBLISHED_TEXTS = {
    1003: "Raw audio formats require sample_rate and num_channels query parameters",
    1011: "Internal server error",
    4002: "The audio could not be processed. It may be corrupted or in an unsupported format.",
    REVOKED: "This request is not permitted.",
    4029: "Insufficient credits.",
}
"""What is said before these close codes, unless a fault has a text of its own (service.md)."""
ANY_TEXT = "Unable to complete the request"
"""Seen live: for an error message with a code that has no published text."""


class Reset(msgspec.Struct, frozen=True):
    """End the TCP connection with a reset, without a close."""


class Pause(msgspec.Struct, frozen=True):
    """Do nothing for so long."""

    seconds: float


class Hold(msgspec.Struct, frozen=True):
    """Neither read nor say anything until the client has left."""


class Revoke(msgspec.Struct, frozen=True):
    """Let the organisation revoke the key that the session came in with."""


class Note(msgspec.Struct, frozen=True):
    """A fault takes effect now."""

    spec: str


Step: TypeAlias = Action | Frame | Reset | Pause | Hold | Revoke | Note


class FaultySession:
    """A session of an endpoint as its server sees it, with these faults. Its methods say what to do next, like those of the honest one."""

    def __init__(self, honest: ServerSession, endpoint: Endpoint, faults: tuple[Fault, ...] = ()) -> None:
        self._honest = honest
        self._endpoint = endpoint
        self._ahead = [fault for fault in faults if fault.place is not None]
        """Those whose place was not reached yet, in the order of their spec."""
        self._due: list[Fault] = []
        """Those whose place was reached, and which wait for the next item or for done."""
        self._always = {fault.name: fault for fault in faults if fault.place is None}
        self._buffered: list[Send] = []
        self._late: list[Send] = []
        """An item that comes after the next."""
        self._stuck = False
        self._bytes = self._items = 0

    @property
    def state(self) -> ServerState:
        """Where the session stands. One that is stuck is not closed, whatever it has said: nobody may leave for it."""
        return ServerState.FINISHING if self._stuck else self._honest.state

    def opened(self) -> list[Step]:
        """The connection was accepted."""
        return self._reach(Moment.UPGRADE) + self._reach(Moment.ITEMS)

    def receive(self, message: str | bytes) -> list[Step]:
        """Take one message of the client: audio, or the empty text that ends it."""
        if self._stuck:
            return [Hold()]
        actions = self._honest.receive(message)
        if self.state is ServerState.CLOSED:
            return self._refused(actions)
        if isinstance(message, str):
            return [*self._reach(Moment.END), *actions]
        self._bytes += len(message)
        return [*self._reach(Moment.BYTES, self._bytes), *actions]

    def found(self, message: Item | Done) -> list[Step]:
        """Send on what the analysis found; after done, close."""
        if self._stuck:
            return [Hold()]
        if self.state is ServerState.CLOSED:
            return []
        return self._item(message) if isinstance(message, Item) else self._done(message)

    def refuse(self, code: int, text: str) -> list[Step]:
        """An error message, then the close."""
        return [Hold()] if self._stuck else self._refused(self._honest.refuse(code, text))

    @property
    def _over(self) -> bool:
        return self._stuck or self._honest.state is ServerState.CLOSED

    # -- faults with a place ------------------------------------------------------------------------------------------------------------

    def _reach(self, moment: Moment, count: int = 0) -> list[Step]:
        """What the faults do whose place this is; those that change a message wait for one."""
        steps: list[Step] = []
        for fault in [fault for fault in self._ahead if fault.place and fault.place.moment is moment and fault.place.count <= count]:
            if self._over:
                break
            self._ahead.remove(fault)
            if fault.kind.role in {Role.CHANGE, Role.MOVE}:
                self._due.append(fault)
            else:
                steps += [Note(fault.spec), *self._strike(fault)]
        return steps

    def _strike(self, fault: Fault) -> list[Step]:
        match fault.kind.role:
            case Role.SAY:
                return [SAYINGS[fault.name](self._endpoint)]
            case Role.END:
                return self._end(fault)
            case Role.REVOKE:
                return [Revoke(), *self._refused(self._honest.refuse(REVOKED, PUBLISHED_TEXTS[REVOKED]))]
            case _ if fault.name == "pause":
                return [Pause(fault.value)]
            case _:
                self._stuck = True
                return [Hold()]

    def _end(self, fault: Fault) -> list[Step]:
        code, text = fault.value if isinstance(fault.value, tuple) else (fault.value, None)
        said = text or PUBLISHED_TEXTS.get(code)
        manner = "silent" if fault.name == "close" and said is None else fault.name
        return self._in_manner(manner, self._honest.refuse(code, said or ANY_TEXT))

    def _refused(self, refusal: list[Action]) -> list[Step]:
        """A real refusal, in the manner of the fault that lies in wait for one."""
        manner = next((fault.name for fault in self._lying_in_wait("silent", "error_noclose", "abrupt")), "close")
        return [*_notes(self._lying_in_wait(manner)), *self._in_manner(manner, refusal)] if refusal else []

    def _in_manner(self, manner: str, refusal: list[Action]) -> list[Step]:
        """An error message and a close, or what else comes of them."""
        message, close = refusal
        if manner == "abrupt":
            return [Reset()]
        if manner == "silent":
            return [close]
        variant = self._lying_in_wait("text_variant")
        said = [*_notes(variant), _changed(message, variant)]
        if manner == "error_noclose":
            self._stuck = True
            return [*said, Hold()]
        return [*said, close]

    def _lying_in_wait(self, *names: str) -> list[Fault]:
        """The faults without a place that have one of these names."""
        return [self._always[name] for name in names if name in self._always]

    # -- what is said -------------------------------------------------------------------------------------------------------------------

    def _item(self, item: Item) -> list[Step]:
        (send,) = self._honest.found(item)
        due = self._take_due(lambda moment: moment is not Moment.DONE)
        moves = {fault.name for fault in due if fault.kind.role is Role.MOVE}
        sends = [_changed(send, due)] * (0 if "drop" in moves else 2 if "dup" in moves else 1)
        sends, self._late = ([], sends) if "reorder" in moves else (sends + self._late, [])
        buffer = [fault for fault in self._lying_in_wait("buffer") if item.end_time_ms < 1000 * fault.value]
        if buffer:
            steps = _notes(due if self._buffered else due + buffer)
            self._buffered += sends
            return steps
        return [*_notes(due), *self._send(sends)]

    def _send(self, sends: list[Send]) -> list[Step]:
        """Send what was kept back, then these; after each it is seen what place that is."""
        sends, self._buffered = self._buffered + sends, []
        steps: list[Step] = []
        for send in sends:
            if not self._over:
                self._items += 1
                steps += [send, *self._reach(Moment.ITEMS, self._items)]
        return steps

    def _done(self, done: Done) -> list[Step]:
        steps = self._send(self._late)
        if not self._over:
            steps += self._reach(Moment.DONE)
        if self._over:
            return steps
        message, close = self._honest.found(done)
        due = self._take_due(lambda moment: moment is Moment.DONE)
        said = _changed(message, due)
        return [*steps, *_notes(due), said, *self._after_done(said, close)]

    def _after_done(self, done: Send, close: Action) -> list[Step]:
        another = self._endpoint.item_type(start_time_ms=0, end_time_ms=self._endpoint.item_ms)
        steps: list[Step] = []
        for fault in self._lying_in_wait("two_done"):
            steps += [Note(fault.spec), done]
        for fault in self._lying_in_wait("other_done"):
            steps += [Note(fault.spec), _changed(done, [fault])]
        for fault in self._lying_in_wait("after_done"):
            steps += [Note(fault.spec), Send(encode(another, self._endpoint.shapes[0]))]
        for fault in self._lying_in_wait("abrupt_done"):
            return [*steps, Note(fault.spec), Reset()]
        for fault in self._lying_in_wait("done_close"):
            return [*steps, Note(fault.spec), Close(fault.value)]
        return [*steps, close]

    def _take_due(self, takes: Callable[[Moment], bool]) -> list[Fault]:
        due = [fault for fault in self._due if fault.place and takes(fault.place.moment)]
        self._due = [fault for fault in self._due if fault not in due]
        return due


def _notes(faults: list[Fault]) -> list[Step]:
    return [Note(fault.spec) for fault in faults]


def _changed(message: Action, faults: list[Fault]) -> Send:
    assert isinstance(message, Send)
    return Send(changed(message.text, [(fault.name, fault.value) for fault in faults]))
