"""From frames to the items and the summary of each endpoint, by the local server's definitions (end of service.md).

An analyst hears the 16 kHz frames of one stream in order; what it answers is what the endpoint would send. The numbers come from the
reference detector, not from Modulate's model.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from connectors.local_velma.detection import ACCUSING, Detector, Probabilities, Regularity
from connectors.local_velma.framing import FRAME_MS, FRAME_SAMPLES, RATE, WINDOW_MS, WINDOW_SAMPLES, Mono
from moderation.messages import AiMusicDone, Done, Frame, Item, MusicDone, Window

SUFFICIENT_VOCALS = 25.0
"""Percent of a window with vocals, from which AI vocals are looked for at all: a second, a few words."""


@dataclass(frozen=True, slots=True)
class Listening:
    """How a stream is heard: the detector's name is resolved, threshold is the probability from which a frame counts (0 to 1)."""

    detector: Detector
    threshold: float = 0.5
    short_windows: bool = False
    """Whether a last window of less than 4 s is reported too."""
    newer_windows: bool = False
    """Whether windows have the newer shape: probabilities that may be None, and no vocal_ai_percentage."""
    source_duration: bool = False
    """Whether the duration of music is that of the source, not that of its frames."""


class Analyst(Protocol):
    """What turns one stream's frames into an endpoint's messages."""

    def hear(self, frame: Mono) -> Iterator[Item]:
        """The items that are complete with this frame of FRAME_SAMPLES."""
        ...

    def end(self, rest: int) -> Iterator[Item]:
        """The items that the end of the stream completes; rest samples were left, less than a frame."""
        ...

    def done(self, duration_ms: int) -> Done:
        """The summary of a stream whose source lasted duration_ms."""
        ...


class MusicAnalyst:
    """The music endpoint: a frame every 192 ms, and how much of them is music and speech."""

    def __init__(self, listening: Listening) -> None:
        self._listening = listening
        self._frames = self._music = self._speech = 0

    def hear(self, frame: Mono) -> Iterator[Item]:
        """One item for every frame."""
        heard = self._listening.detector.hear(frame)
        start = self._frames * FRAME_MS
        self._frames += 1
        self._music += heard.music >= self._listening.threshold
        self._speech += heard.speech >= self._listening.threshold
        yield Frame(start_time_ms=start, end_time_ms=start + FRAME_MS, music_prob=heard.music, speech_prob=heard.speech)

    def end(self, rest: int) -> Iterator[Item]:  # noqa: ARG002 - less than a frame is dropped (service.md, decision 19)
        """Nothing: frames are complete as they come."""
        yield from ()

    def done(self, duration_ms: int) -> MusicDone:
        """The shares of the frames, and the label that follows from them (service.md, decision 19, for the duration)."""
        return MusicDone(
            duration_ms=duration_ms if self._listening.source_duration else self._frames * FRAME_MS,
            frame_count=self._frames,
            music_pct=percentage(self._music, self._frames),
            speech_pct=percentage(self._speech, self._frames),
            primary_label=primary_label(self._frames, self._music, self._speech),
        )


class AiMusicAnalyst:
    """The AI-music endpoint: a window every 4 s, and a verdict that never accuses: see AI_CONFIDENCE_CAP.

    A frame belongs to the window in which it ends, so a window has 20 or 21 of them, and is reported with the frame that crosses its end.
    """

    def __init__(self, listening: Listening) -> None:
        self._listening = listening
        self._clip = Regularity()
        self._window = self._new_window()
        self._windows: list[Window] = []
        self._samples = 0

    def hear(self, frame: Mono) -> Iterator[Item]:
        """A window whenever its end is passed."""
        heard = self._listening.detector.hear(frame)
        self._samples += FRAME_SAMPLES
        if self._samples > self._window_end():
            yield self._close(self._window_end())
        self._clip.hear(frame)
        self._window.add(frame, heard, self._listening.threshold)
        if self._samples == self._window_end():
            yield self._close(self._samples)

    def end(self, rest: int) -> Iterator[Item]:
        """The window that ends within the rest; and a short one where those are wanted and a frame of it was heard."""
        self._samples += rest
        if self._samples >= self._window_end():
            yield self._close(self._window_end())
        if self._listening.short_windows and self._window.frames:
            yield self._close(self._samples)

    def done(self, duration_ms: int) -> AiMusicDone:
        """The means over the windows, and the verdict."""
        with_vocals = [window for window in self._windows if has_vocals(window)]
        score = self.instrumental_score() if any(window.instrumental_percentage for window in self._windows) else 0.0
        ai_windows = sum(window.vocal_ai_percentage == 100 for window in self._windows)  # noqa: PLR2004 - percent
        return AiMusicDone(
            duration_ms=duration_ms,
            window_count=len(self._windows),
            primary_verdict=primary_verdict(len(with_vocals), ai_windows, 100 * score),
            vocal_percentage=round(_mean([window.vocal_percentage for window in self._windows]), 1),
            vocal_ai_percentage=percentage(ai_windows, len(self._windows)),
            vocal_ai_confidence=round(_mean([window.vocal_ai_confidence for window in with_vocals]), 4),
            instrumental_percentage=round(_mean([window.instrumental_percentage for window in self._windows]), 1),
            instrumental_ai_percentage=round(100 * score, 1),
            instrumental_ai_confidence=score,
            silence_percentage=round(_mean([window.silence_percentage for window in self._windows]), 1),
        )

    def judged(self, window: Window) -> Window:
        """A window as it counts: as it was heard."""
        return window

    def instrumental_score(self) -> float:
        """The confidence that the clip's instruments are AI-made, 0 to 1."""
        return self._clip.confidence()

    def _window_end(self) -> int:
        return (len(self._windows) + 1) * WINDOW_SAMPLES

    def _close(self, end: int) -> Window:
        window = self.judged(self._window.window(len(self._windows) * WINDOW_MS, end * 1000 // RATE))
        self._windows.append(window)
        self._window = self._new_window()
        return newer(window) if self._listening.newer_windows else older(window)

    def _new_window(self) -> "_WindowTally":
        return _WindowTally(instruments=Regularity() if self._listening.newer_windows else None)


class _WindowTally:
    """What was heard in the frames of one window; instruments are listened to apart where their probability is asked for."""

    def __init__(self, instruments: Regularity | None) -> None:
        self.frames = 0
        self._counts: Counter[str] = Counter()
        self._voices = Regularity()
        self._instruments = instruments

    def add(self, frame: Mono, heard: Probabilities, threshold: float) -> None:
        vocal, instrumental = heard.vocal >= threshold, heard.music >= threshold
        self.frames += 1
        self._counts.update(vocal=vocal, instrumental=instrumental, silence=not (vocal or instrumental))
        if vocal:
            self._voices.hear(frame)
        if instrumental and self._instruments is not None:
            self._instruments.hear(frame)

    def window(self, start_ms: int, end_ms: int) -> Window:
        """With the measurements of both shapes; a probability is None where there is nothing to evaluate."""
        vocal, instrumental = percentage(self._counts["vocal"], self.frames), percentage(self._counts["instrumental"], self.frames)
        confidence = self._voices.confidence() if vocal >= SUFFICIENT_VOCALS else None
        return Window(
            start_time_ms=start_ms,
            end_time_ms=end_ms,
            vocal_percentage=vocal,
            vocal_ai_percentage=100.0 if confidence is not None and confidence >= ACCUSING else 0.0,
            vocal_ai_confidence=confidence or 0.0,
            instrumental_percentage=instrumental,
            silence_percentage=percentage(self._counts["silence"], self.frames),
            vocal_ai_probability=confidence,
            instrumental_ai_probability=self._instruments.confidence() if self._instruments is not None and instrumental else None,
        )


ANALYSTS: dict[str, type[MusicAnalyst | AiMusicAnalyst]] = {"music": MusicAnalyst, "ai_music": AiMusicAnalyst}
"""By the name of the endpoint."""


def primary_label(frames: int, music: int, speech: int) -> str:
    """The label of a clip from its counts of frames (service.md, 'Labels')."""
    if not frames:
        return "unknown"
    if music and music >= speech:
        return "music"
    return "speech" if speech else "neither"


def primary_verdict(windows_with_vocals: int, ai_windows: int, instrumental_score: float) -> str:
    """The verdict on a clip from its counts of windows and its instrumental score of 0 to 100 (service.md, local server definitions)."""
    if windows_with_vocals and 2 * ai_windows >= windows_with_vocals:
        return "ai-vocal-music"
    return "ai-instrumental" if instrumental_score >= 100 * ACCUSING else "not-ai-music"


def has_vocals(window: Window) -> bool:
    """Whether there is enough voice in a window to ask whose it is."""
    return (window.vocal_percentage or 0.0) >= SUFFICIENT_VOCALS


def older(window: Window) -> Window:
    """A window in the shape of the seed page."""
    return replace(window, vocal_ai_probability=None, instrumental_ai_probability=None)


def newer(window: Window) -> Window:
    """A window in the newer shape (service.md, 'Facts beyond the seeds')."""
    return replace(window, vocal_ai_percentage=None)


def percentage(part: int, whole: int) -> float:
    """Percent with one decimal; 0 of nothing."""
    return round(100 * part / whole, 1) if whole else 0.0


def _mean(values: list[float | None]) -> float:
    return sum(value or 0.0 for value in values) / len(values) if values else 0.0
