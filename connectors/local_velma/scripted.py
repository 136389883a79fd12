"""The AI-music endpoint with a chosen verdict: what it heard, made to fit. For tests and demonstrations, and labelled as scripted."""

from msgspec.structs import replace

from connectors.local_velma.analysts import AiMusicAnalyst, Listening, has_vocals
from connectors.local_velma.switches import Verdict
from moderation.messages import Window

SURE, UNSURE = 0.97, 0.03
"""Probabilities of what the script says, and of what it denies."""
LEAST_SHARE, MOST_SILENCE = 75.0, 25.0
"""Percent of a window: enough of what the verdict is about to have one."""


class ScriptedAiMusicAnalyst(AiMusicAnalyst):
    """An analyst whose windows and summary say what the script does; without a window nobody can say anything (decision 21)."""

    def __init__(self, listening: Listening, verdict: Verdict) -> None:
        super().__init__(listening)
        self._verdict = verdict

    def judged(self, window: Window) -> Window:
        """A window with the shares that the verdict needs at least, and its AI scores."""
        match self._verdict:
            case Verdict.AI_VOCAL_MUSIC:
                window = replace(window, vocal_percentage=_at_least(window.vocal_percentage), silence_percentage=_little_silence(window))
            case Verdict.AI_INSTRUMENTAL:
                most = _at_least(window.instrumental_percentage)
                window = replace(window, instrumental_percentage=most, silence_percentage=_little_silence(window))
        accused = self._verdict is Verdict.AI_VOCAL_MUSIC
        vocal = (SURE if accused else UNSURE) if has_vocals(window) else None
        return replace(
            window,
            vocal_ai_percentage=100.0 if accused else 0.0,
            vocal_ai_confidence=vocal or 0.0,
            vocal_ai_probability=vocal,
            instrumental_ai_probability=self._instrumental() if window.instrumental_percentage else None,
        )

    def instrumental_score(self) -> float:
        """What the script says of the clip's instruments."""
        return self._instrumental()

    def _instrumental(self) -> float:
        return SURE if self._verdict is Verdict.AI_INSTRUMENTAL else UNSURE


def _at_least(share: float | None) -> float:
    return max(LEAST_SHARE, share or 0.0)


def _little_silence(window: Window) -> float:
    return min(MOST_SILENCE, window.silence_percentage or 0.0)
