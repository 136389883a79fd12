"""One streaming session as its client sees it, a state machine without I/O (seed pages, 'Protocol'; service.md, decisions).

`ClientSession` is told what was sent and what came, and says at its end what that was worth. Its other half is in server_session.py;
the client's and the local server's code only move bytes between these two.
"""

from collections import Counter
from enum import StrEnum
from typing import Any

from moderation.endpoints import Endpoint
from moderation.errors import Phase, SessionError
from moderation.formats import StreamParameters
from moderation.messages import Decoded, Done, ErrorMessage, Item, UnknownMessage, Violation, decode, out_of_range
from moderation.results import MIN_COVERAGE, Columns, Flag, SessionResult

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
        self.unknown: Counter[str] = Counter()
        self.unknown_sample: str | None = None
        self.extra: dict[str, Any] = {}
        self.bytes_sent = 0
        self.end_sent = False
        self.close_code: int | None = None
        self._done: Done | None = None
        self._error: str | None = None
        self._violation: Violation | None = None
        self._last: Item | None = None
        self._shapes: set[str] = set()

    @property
    def phase(self) -> Phase:
        """How far the session has come, for the classification of an error."""
        if self.end_sent:
            return Phase.DRAINING
        return Phase.STREAMING if len(self.columns) else Phase.ADMITTED

    @property
    def over(self) -> bool:
        """Whether a verdict is known; only a done that follows an error message could still better it."""
        return self.state in ENDED

    @property
    def acknowledged_ms(self) -> int:
        """Milliseconds of audio that the service has given results for."""
        return self._last.end_time_ms if self._last else 0

    @property
    def audio_sent_ms(self) -> int:
        """Milliseconds of audio sent: exact for raw PCM, else what the items prove."""
        rate = self.parameters.bytes_per_second
        return self.bytes_sent * 1000 // rate if rate else self.acknowledged_ms

    def sending(self, size: int) -> None:
        """Count `size` bytes of audio that are about to be sent."""
        self.bytes_sent += size

    def end_of_stream(self) -> None:
        """Note that the empty text frame was sent: only after the last byte of the object."""
        self.end_sent = True
        self._on(Event.END_SENT)

    def receive(self, text: str | bytes) -> None:
        """Take one message of the service."""
        try:
            decoded = decode(text, self.endpoint.item_name, self.endpoint.item_type, self.endpoint.done_type)
        except Violation as violation:
            self._violate(violation)
            return
        if self.state is State.DONE:
            if decoded.message != self._done:
                self.flags.add(Flag.AFTER_DONE)
            return
        self._take(decoded, text)

    def closed(self, code: int | None) -> None:
        """Note how the connection ended; None when it just broke."""
        self.close_code = NO_CLOSE_FRAME if code is None else code

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
            extra=self.extra,
            close_code=self.close_code,
        )

    def _on(self, event: Event) -> None:
        self.state = TRANSITIONS.get((self.state, event), self.state)

    def _take(self, decoded: Decoded, text: str | bytes) -> None:
        message = decoded.message
        if isinstance(message, ErrorMessage):
            self._error = self._error or message.error
            self._on(Event.ERROR)
        elif isinstance(message, UnknownMessage):
            self.unknown[message.type] += 1
            self.unknown_sample = self.unknown_sample or message.sample
            self.flags.add(Flag.SHAPE)
            self._on(Event.UNKNOWN)
        elif isinstance(message, Item):
            self._take_item(message, decoded.present)
            self._note_extra(decoded)
            self._on(Event.ITEM)
        else:
            self._take_done(message, text)
            self._note_extra(decoded)

    def _note_extra(self, decoded: Decoded) -> None:
        if decoded.extra:
            self.flags.add(Flag.SHAPE)
            self.extra = decoded.extra | self.extra

    def _take_item(self, item: Item, present: frozenset[str]) -> None:
        if item == self._last:
            self.flags.add(Flag.DUPLICATE)
            return
        if self.state is State.BROKEN:
            return
        self._check_place(item)
        shape = self.endpoint.shape_of(present)
        self._shapes.add(shape.name)
        if any(getattr(item, name) is None for name in shape.measures - shape.nullable):
            self.flags.add(Flag.MISSING)
        self.columns.append(item)
        self._last = item

    def _check_place(self, item: Item) -> None:
        """Flag an item that does not follow the last one, or speaks of audio that was not sent yet."""
        expected_start, last_is_short = 0, False
        if self._last:
            expected_start = self._last.end_time_ms
            last_is_short = self._last.end_time_ms - self._last.start_time_ms < self.endpoint.item_ms
        length = item.end_time_ms - item.start_time_ms
        fits = length == self.endpoint.item_ms or (self.endpoint.last_item_may_be_short and length < self.endpoint.item_ms)
        if item.start_time_ms != expected_start or last_is_short or not fits:
            self.flags.add(Flag.GAP)
        if self.parameters.bytes_per_second and item.end_time_ms > self.audio_sent_ms + self.endpoint.item_ms + AHEAD_TOLERANCE_MS:
            self.flags.add(Flag.AHEAD)

    def _take_done(self, done: Done, text: str | bytes) -> None:
        if not self.end_sent:
            self._violate(Violation("done_before_end", text))
        elif all(getattr(done, name) is None for name in done.__struct_fields__):
            self._violate(Violation("empty_done", text))
        else:
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
        elif self.close_code in {NORMAL_CLOSE, None}:
            detail = "ended without a done message"
        else:
            detail = "closed before a done message"
        return SessionError(detail, phase=self.phase, close_code=self.close_code, text=self._error, protocol=protocol)
