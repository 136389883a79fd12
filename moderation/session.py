"""One streaming session as its client sees it, a state machine without I/O (seed pages, 'Protocol'; service.md, decisions).

`ClientSession` is told what was sent and what came, and says at its end what that was worth. Its other half is in server_session.py;
the client's and the local server's code only move bytes between these two.
"""

import math
from enum import StrEnum
from typing import Any

from moderation.drift import Drift
from moderation.endpoints import Endpoint
from moderation.errors import Phase, SessionError
from moderation.formats import StreamParameters
from moderation.messages import Decoded, Done, ErrorMessage, Item, UnknownMessage, out_of_range
from moderation.plain_items import reader
from moderation.results import MIN_COVERAGE, Columns, Flag, SessionResult
from moderation.violations import Breach, Violation

AHEAD_TOLERANCE_MS = 1000
"""Items may speak of one item plus this much more audio than was sent (service.md, decision 26)."""
NORMAL_CLOSE = 1000
NO_CLOSE_FRAME = 1006


class State(StrEnum):
    """Where a client's session stands."""

    UPLOADING = "uploading"
    """Audio is being sent."""
    DRAINING = "draining"
    """The end of stream was sent; done is awaited."""
    DONE = "done"
    REFUSED = "refused"
    """An error message came."""
    BROKEN = "broken"
    """The service broke the protocol."""


class Event(StrEnum):
    """What can happen to a client's session."""

    ITEM = "item"
    DONE = "done"
    ERROR = "error"
    UNKNOWN = "unknown"
    END_SENT = "end_sent"
    VIOLATION = "violation"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.UPLOADING, Event.ITEM): State.UPLOADING,
    (State.UPLOADING, Event.UNKNOWN): State.UPLOADING,
    (State.UPLOADING, Event.END_SENT): State.DRAINING,
    (State.UPLOADING, Event.ERROR): State.REFUSED,
    (State.UPLOADING, Event.VIOLATION): State.BROKEN,
    (State.DRAINING, Event.ITEM): State.DRAINING,
    (State.DRAINING, Event.UNKNOWN): State.DRAINING,
    (State.DRAINING, Event.DONE): State.DONE,
    (State.DRAINING, Event.ERROR): State.REFUSED,
    (State.DRAINING, Event.VIOLATION): State.BROKEN,
    (State.REFUSED, Event.DONE): State.DONE,
    (State.BROKEN, Event.ERROR): State.REFUSED,
}
"""What is not in this table leaves the state as it is: after an end, nothing that comes changes the verdict but a late reason or done."""
ENDED = frozenset({State.DONE, State.REFUSED, State.BROKEN})


class ClientSession:
    """The client's view of one session: told what was sent and received, it gives a verdict once the connection is over.

    Precedence of the verdict (design.md section 4): done > error message > close code > transport.
    """

    def __init__(self, endpoint: Endpoint, parameters: StreamParameters, *, expected_ms: int | None = None) -> None:
        self.endpoint = endpoint
        self.parameters = parameters
        self.expected_ms = expected_ms
        self.state = State.UPLOADING
        self.columns = Columns(endpoint)
        self.flags: set[Flag] = set()
        self.drift = Drift()
        self.duplicates = 0
        self.bytes_sent = 0
        self.end_sent = False
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self._rate = parameters.bytes_per_second
        self._stalled = False
        self._done: Done | None = None
        self._error: str | None = None
        self._violation: Violation | None = None
        self._next_start_ms: int | None = 0
        """Where the next item should start; None where none should come, as the last was a short one."""
        self._latest_end_ms = self._end_of_sent_ms()
        self._acknowledged_ms = 0
        self._shapes: set[str] = set()
        self._present: frozenset[str] | None = None
        self._required: frozenset[str] = frozenset()
        self._read = reader(endpoint.item_type, endpoint.done_type)

    @property
    def phase(self) -> Phase:
        """How far the session has come, for the classification of an error: a small object is all sent before its refusal comes."""
        if not len(self.columns):
            return Phase.ADMITTED
        return Phase.DRAINING if self.end_sent else Phase.STREAMING

    @property
    def over(self) -> bool:
        """Whether a verdict is known; only a done that follows an error message could still better it."""
        return self.state in ENDED

    @property
    def acknowledged_ms(self) -> int:
        """Milliseconds of audio up to which the service has given results."""
        return self._acknowledged_ms

    @property
    def audio_sent_ms(self) -> int:
        """Milliseconds of audio sent: exact for raw PCM, else what the items prove."""
        return self.bytes_sent * 1000 // self._rate if self._rate else self._acknowledged_ms

    @property
    def end_ms(self) -> int | None:
        """Where the audio ends, in milliseconds: by the object's header, or by what was sent; None where nobody knows yet."""
        if self.expected_ms is not None or not (self._rate and self.end_sent):
            return self.expected_ms
        return self.audio_sent_ms

    def sending(self, size: int) -> None:
        """Count `size` bytes of audio that are about to be sent."""
        self.bytes_sent += size
        self._latest_end_ms = self._end_of_sent_ms()

    def end_of_stream(self) -> None:
        """Note that the empty text frame was sent: only after the last byte of the object."""
        self.end_sent = True
        self._on(Event.END_SENT)

    def receive(self, text: str | bytes) -> None:
        """Take one message of the service."""
        try:
            decoded = self._read(text)
        except Violation as violation:
            self._violate(violation)
            return
        if self.state is State.DONE:
            if decoded.message != self._done:
                self.flags.add(Flag.AFTER_DONE)
            return
        self._take(decoded, text)

    def garbled(self, complaint: str) -> None:
        """Note that what came was no WebSocket message at all, and what the library says about it."""
        self._violate(Violation(Breach.BAD_FRAME, complaint))

    def stalled(self) -> None:
        """Note that a deadline has passed and this side ends the session."""
        self._stalled = True

    def closed(self, code: int | None, reason: str | None = None) -> None:
        """Note how the service ended the connection, code None when it just broke; nothing is noted where this side did."""
        self.close_code = NO_CLOSE_FRAME if code is None else code
        self.close_reason = reason or None

    def result(self) -> SessionResult:
        """The verdict, once the connection is over. Raises SessionError without a valid done."""
        if self._done is None or self.state is not State.DONE:
            raise self._failure()
        covered = self.columns.covered_ms()
        return SessionResult(
            endpoint=self.endpoint,
            columns=self.columns,
            done=self._done,
            flags=frozenset(self.flags | self._closing_flags(self._done, covered)),
            covered_ms=covered,
            wire_shape=",".join(sorted(self._shapes)) or self.endpoint.shapes[0].name,
            extra=self.drift.summary(),
            close_code=self.close_code,
        )

    def _end_of_sent_ms(self) -> float:
        """Where an item could end at the latest, as the service knows no more audio: exact for raw PCM alone."""
        return self.audio_sent_ms + self.endpoint.item_ms + AHEAD_TOLERANCE_MS if self._rate else math.inf

    def _on(self, event: Event) -> None:
        self.state = TRANSITIONS.get((self.state, event), self.state)

    def _take(self, decoded: Decoded, text: str | bytes) -> None:
        message = decoded.message
        if isinstance(message, Item):
            self._take_item(message, decoded.present)
            if decoded.extra:
                self._note_extra(decoded.extra)
            self._on(Event.ITEM)
        elif isinstance(message, ErrorMessage):
            self._error = self._error or message.error
            self._on(Event.ERROR)
        elif isinstance(message, UnknownMessage):
            self.drift.note_message(message)
            self.flags.add(Flag.SHAPE)
            self._on(Event.UNKNOWN)
        else:
            self._take_done(message, text)
            if decoded.extra:
                self._note_extra(decoded.extra)

    def _note_extra(self, fields: dict[str, Any]) -> None:
        self.flags.add(Flag.SHAPE)
        self.drift.note_fields(fields)

    def _take_item(self, item: Item, present: frozenset[str]) -> None:
        if self.state is State.BROKEN:
            return
        if item.start_time_ms < self._acknowledged_ms and self.columns.holds(item):
            self.flags.add(Flag.DUPLICATE)
            self.duplicates += 1
            return
        self._check_place(item)
        if present is not self._present:
            self._note_shape(present)
        for name in self._required:
            if getattr(item, name) is None:
                self.flags.add(Flag.MISSING)
        self.columns.append(item)
        self._acknowledged_ms = max(self._acknowledged_ms, item.end_time_ms)

    def _note_shape(self, present: frozenset[str]) -> None:
        """Note the form of items with these fields, and what they must measure."""
        shape = self.endpoint.shape_of(present)
        self._shapes.add(shape.name)
        self._present, self._required = present, shape.measures - shape.nullable

    def _check_place(self, item: Item) -> None:
        """Flag an item that does not follow the last one, or speaks of audio that was not sent yet."""
        start, end, item_ms = item.start_time_ms, item.end_time_ms, self.endpoint.item_ms
        if end > self._latest_end_ms:
            self.flags.add(Flag.AHEAD)
        is_short = end - start < item_ms
        if start != self._next_start_ms or end - start > item_ms or (is_short and not self.endpoint.last_item_may_be_short):
            self.flags.add(Flag.GAP)
        self._next_start_ms = None if is_short else end

    def _take_done(self, done: Done, text: str | bytes) -> None:
        if not self.end_sent:
            self._violate(Violation(Breach.DONE_BEFORE_END, text))
        elif all(getattr(done, name) is None for name in done.__struct_fields__):
            self._violate(Violation(Breach.EMPTY_DONE, text))
        elif self._violation is None:
            self._done = done
            self._on(Event.DONE)

    def _violate(self, violation: Violation) -> None:
        if self.state is State.DONE:
            self.flags.add(Flag.AFTER_DONE)
            return
        self._violation = self._violation or violation
        self._on(Event.VIOLATION)

    def _closing_flags(self, done: Done, covered_ms: int) -> set[Flag]:
        flags = set()
        fields = {name: getattr(done, name) for name in done.__struct_fields__}
        if self._error is not None:
            flags.add(Flag.ERROR)
        if None in fields.values():
            flags.add(Flag.MISSING)
        if out_of_range(done):
            flags.add(Flag.RANGE)
        last_end = max(self.columns.times["end_time_ms"], default=0)
        if fields[self.endpoint.count_field] not in {None, len(self.columns)}:
            flags.add(Flag.COUNT_MISMATCH)
        if done.duration_ms is not None and done.duration_ms + self.endpoint.item_ms < last_end:
            flags.add(Flag.COUNT_MISMATCH)
        audio_ms = max(self.expected_ms or 0, done.duration_ms or 0)
        if covered_ms + self.endpoint.item_ms < MIN_COVERAGE * audio_ms:
            flags.add(Flag.PARTIAL)
        return flags

    def _failure(self) -> SessionError:
        protocol = None
        if self._error is not None:
            detail = "refused by the service"
        elif self._violation is not None:
            protocol = self._violation.name
            detail = f"the service broke the protocol ({protocol}): {self._violation.sample}"
        elif self._stalled and self.close_code is None:
            detail = f"nothing moved at {self.acknowledged_ms} ms of audio"
        elif self.close_code in {NORMAL_CLOSE, None}:
            detail = "ended without a done message"
        else:
            detail = "closed before a done message"
        return SessionError(
            detail, phase=self.phase, close_code=self.close_code, close_reason=self.close_reason, text=self._error, protocol=protocol
        )
