"""How fast audio may go out, how long results may gather and a silence may last. Times are arguments: seconds of a monotonic clock."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class AckWindow:
    """A bound on the audio in flight: sent, but not yet answered by an item's `end_time_ms` (design.md section 4).

    Audio is counted in milliseconds where the rate is known (raw PCM), else in bytes. It never starves the service: after
    `patience_s` without news one more chunk always may go, since servers buffer 20 s and containers carry cover art.
    """

    limit_ms: int = 60_000
    limit_bytes: int = 4 * 1024 * 1024
    patience_s: float = 5.0
    bytes_per_second: int | None = None
    _sent: int = 0
    _answered: int = 0
    _acknowledged_ms: int = 0
    started_at: float = 0.0
    _heard_at: float = 0.0

    def start(self, now: float) -> None:
        """Begin to count silence."""
        self.started_at = self._heard_at = now

    def sending(self, size: int, now: float) -> None:
        """Count `size` bytes that go out; a chunk that went beyond the window starts the patience anew."""
        if not self.has_room:
            self._heard_at = now
        self._sent += size

    def answered(self, acknowledged_ms: int, now: float) -> None:
        """Note that the service has given results up to here: for containers that answers everything sent so far.

        Only a new result does: a service that talks of other things, and waits for more audio before the next, would starve.
        """
        if acknowledged_ms == self._acknowledged_ms:
            return
        self._acknowledged_ms = acknowledged_ms
        answered = acknowledged_ms * self.bytes_per_second // 1000 if self.bytes_per_second else self._sent
        self._answered = max(self._answered, min(answered, self._sent))
        self._heard_at = now

    @property
    def has_room(self) -> bool:
        """Whether less is in flight than the bound."""
        limit = self.limit_ms * self.bytes_per_second // 1000 if self.bytes_per_second else self.limit_bytes
        return self._sent - self._answered < limit

    def wait_s(self, now: float) -> float:
        """Seconds to wait, if nothing is heard, before the next chunk may go; 0 when it may go now."""
        return 0.0 if self.has_room else max(0.0, self._heard_at + self.patience_s - now)


GATHERED_MS = 2_000
"""Milliseconds of audio whose results a receiver lets gather: a small part of the window, so that the sender does not starve."""
LONGEST_GATHERING_S = 0.05
BLIND_GATHERING_S = 0.01
"""The longest where nobody knows when the audio ends."""


def gathering_s(heard_ms: int, elapsed_s: float, item_ms: int, end_ms: int | None) -> float:
    """Seconds that a receiver lets results gather, which cost less together than a turn of the loop each.

    heard_ms of audio have their results after elapsed_s, and each result is of item_ms. It is half of what is left until end_ms at the
    most, so that done does not wait, and 0 where no further result would come meanwhile.
    """
    if heard_ms <= 0:
        return 0.0
    s_per_ms = elapsed_s / heard_ms
    left_s = BLIND_GATHERING_S if end_ms is None else max(0, end_ms - heard_ms) * s_per_ms / 2
    gathering = min(GATHERED_MS * s_per_ms, LONGEST_GATHERING_S, left_s)
    return gathering if gathering >= item_ms * s_per_ms else 0.0


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long each silence may last, in seconds (service.md, decision 25)."""

    connect_s: float = 15.0
    progress_s: float = 120.0
    """No message received and no bytes accepted."""
    done_s: float = 60.0
    done_share: float = 0.25
    """After the end of stream: done_s plus this share of the audio's duration (the AI endpoint works at the end)."""
    error_s: float = 5.0
    """After an error message without a close, or a failed send without a reason."""
    close_s: float = 2.0
    """For the closing handshake; then the transport is aborted."""

    def after_end(self, audio_ms: int) -> float:
        """Seconds to wait for done after the end of stream."""
        return self.done_s + self.done_share * audio_ms / 1000


@dataclass(slots=True)
class Watchdog:
    """The deadline that applies now: `touch` on every sign of life, `draining` after the end of stream, `dying` after an error."""

    deadlines: Deadlines
    _until: float = field(default=0.0)
    _fixed: bool = field(default=False)

    def touch(self, now: float) -> None:
        """Note progress: a message, or bytes accepted."""
        if not self._fixed:
            self._until = now + self.deadlines.progress_s

    def draining(self, now: float, audio_ms: int) -> None:
        """Note that the end of stream was sent: from now on only done, or a bounded time, ends the wait (a dying one has less)."""
        if not self._fixed:
            self._fixed = True
            self._until = now + self.deadlines.after_end(audio_ms)

    def dying(self, now: float) -> None:
        """Note an error message or a failed send: the other half has a few seconds to come."""
        self._fixed = True
        self._until = min(self._until, now + self.deadlines.error_s)

    def left_s(self, now: float) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self._until - now)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast audio may be sent: `times_real_time` of a raw stream's own speed, None for as fast as it is accepted."""

    times_real_time: float | None = None

    def due_s(self, sent_bytes: int, bytes_per_second: int | None) -> float:
        """Seconds after the start at which the next byte is due, when this much was sent; 0 where the rate is not known."""
        if not self.times_real_time or not bytes_per_second:
            return 0.0
        return sent_bytes / bytes_per_second / self.times_real_time
