"""What the local server's analysis says about audio: on generated sounds, and on the shared clips whose truth is known."""

import csv
import io
import json
from pathlib import Path

import av
import numpy as np
import pytest

from connectors.local_velma import analysis
from connectors.local_velma.analysts import primary_label, primary_verdict
from connectors.local_velma.detection import (
    ACCUSING,
    AI_CONFIDENCE_CAP,
    MUSIC_WEIGHTS,
    SPEECH_WEIGHTS,
    Regularity,
    SignalDetector,
    StubDetector,
)
from connectors.local_velma.features import NAMES
from connectors.local_velma.framing import FRAME_SAMPLES
from moderation.endpoints import ENDPOINTS
from moderation.formats import CONTAINERS, RAW_FORMATS, AudioFormat

SHARED_AUDIO = Path(__file__).parents[3].parent / "shared" / "audio"
CODECS = {"wav": "pcm_s16le", "mp3": "libmp3lame", "ogg": "libopus", "flac": "flac", "webm": "libopus", "aac": "aac", "aiff": "pcm_s16be"}


class Pieces(io.RawIOBase):
    """A stream of bytes that arrive in pieces of one size."""

    def __init__(self, data: bytes, size: int) -> None:
        self._stream = io.BytesIO(data)
        self._size = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._stream.read(min(self._size, len(buffer)))
        buffer[: len(data)] = data
        return len(data)


def said(data: bytes, endpoint: str, audio_format: str, size: int = 1 << 16, **options) -> list[dict]:
    sink = io.BytesIO()
    analysis.run(io.BufferedReader(Pieces(data, size)), sink, endpoint=endpoint, audio_format=audio_format, **options)
    return [json.loads(line) for line in sink.getvalue().splitlines()]


def s16(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def tune(seconds: float, rate: int = 16000) -> np.ndarray:
    """Three notes with overtones, a new chord every second."""
    at = np.arange(int(seconds * rate)) / rate
    root = 220 * 2 ** (np.floor(at) % 4 / 4)
    notes = [np.sin(2 * np.pi * root * ratio * harmonic * at) / harmonic for ratio in (1, 1.25, 1.5) for harmonic in (1, 2, 3)]
    return 0.1 * np.sum(notes, axis=0)


RAW_16K = {"sample_rate": 16000, "num_channels": 1}


@pytest.mark.parametrize("audio_format", sorted(RAW_FORMATS))
@pytest.mark.parametrize("endpoint", ["music", "ai_music"])
def test_items_of_every_raw_format(audio_format, endpoint):
    data = bytes(AudioFormat(audio_format).sample_bytes * 2 * 8000 * 4 + 1)
    *items, done = said(data, endpoint, audio_format, sample_rate=8000, num_channels=2, detector="stub")
    assert len(items) == {"music": 20, "ai_music": 1}[endpoint]
    assert done["duration_ms"] == {"music": 20 * 192, "ai_music": 4000}[endpoint]
    assert done[ENDPOINTS[endpoint].count_field] == len(items)


@pytest.mark.parametrize("audio_format", sorted(CONTAINERS))
def test_items_of_every_container(audio_format):
    sink = io.BytesIO()
    with av.open(sink, "w", format={"aac": "adts"}.get(audio_format, str(audio_format))) as out:
        stream = out.add_stream(CODECS[audio_format], rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray((tune(2, 48000) * 32767).astype(np.int16)[None, :], format="s16", layout="mono")
        frame.sample_rate = 48000
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48000, frame_size=stream.codec_context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            out.mux(stream.encode(piece))
    *frames, done = said(sink.getvalue(), "music", audio_format)
    assert len(frames) in {10, 11}  # 10.4 frames, and codecs pad
    assert done["frame_count"] == len(frames)
    assert done["primary_label"] == "music"


@pytest.mark.parametrize("endpoint", ["music", "ai_music"])
def test_pieces_change_no_message(endpoint):
    data = s16(tune(4.3, 8000)) + b"\x01"
    options = {"sample_rate": 8000, "num_channels": 1, "short_windows": True}
    whole = said(data, endpoint, "s16le", **options)
    for size in (1, 7, 997):
        assert said(data, endpoint, "s16le", size, **options) == whole


def test_frames_follow_each_other():
    *frames, done = said(s16(tune(2)), "music", "s16le", **RAW_16K)
    assert [message["frame"]["start_time_ms"] for message in frames] == list(range(0, 10 * 192, 192))
    assert {message["frame"]["end_time_ms"] - message["frame"]["start_time_ms"] for message in frames} == {192}
    assert done == {"type": "done", "duration_ms": 1920, "frame_count": 10, "music_pct": 100.0, "speech_pct": 0.0, "primary_label": "music"}


@pytest.mark.parametrize(("seconds", "ends"), [(3.9, []), (4.0, [4000]), (9.5, [4000, 8000])])
def test_only_complete_windows(seconds, ends):
    *windows, done = said(s16(tune(seconds)), "ai_music", "s16le", **RAW_16K)
    assert [message["window"]["end_time_ms"] for message in windows] == ends
    assert (done["window_count"], done["duration_ms"]) == (len(ends), round(1000 * seconds))


@pytest.mark.parametrize(
    ("seconds", "ends"), [(0.1, []), (3.9, [3900]), (4.0, [4000]), (4.03, [4000]), (4.1, [4000, 4100]), (9.5, [4000, 8000, 9500])]
)
def test_short_windows_where_they_are_wanted(seconds, ends):
    *windows, _ = said(s16(tune(seconds)), "ai_music", "s16le", short_windows=True, **RAW_16K)
    assert [message["window"]["end_time_ms"] for message in windows] == ends


@pytest.mark.parametrize("data", [b"", bytes(3200)])
def test_less_than_an_item_is_a_summary_of_nothing(data):
    (music,) = said(data, "music", "s16le", **RAW_16K)
    assert music == {"type": "done", "duration_ms": 0, "frame_count": 0, "music_pct": 0.0, "speech_pct": 0.0, "primary_label": "unknown"}
    (ai_music,) = said(data, "ai_music", "s16le", **RAW_16K)
    assert ai_music.pop("primary_verdict") == "not-ai-music"
    assert ai_music.pop("duration_ms") == len(data) / 32
    assert set(ai_music.values()) == {"done", 0}


@pytest.mark.parametrize("sound", [np.zeros(160000), np.random.default_rng(2).normal(0, 0.1, 160000)], ids=["silence", "noise"])
def test_silence_and_noise_are_neither(sound):
    done = said(s16(sound), "music", "s16le", **RAW_16K)[-1]
    assert done["primary_label"] == "neither"


def test_garbage_is_an_error_and_nothing_else():
    assert said(np.random.default_rng(3).bytes(20000), "music", "flac") == [
        {"type": "error", "error": "Audio data does not match the declared audio_format."}
    ]
    assert said(b"fLaC" + bytes(9000), "ai_music", "flac") == [
        {"type": "error", "error": "The audio could not be processed. It may be corrupted or in an unsupported format."}
    ]


def test_done_comes_after_the_last_byte():
    data = s16(np.zeros(16000))
    header = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x80>\0\0\0}\0\0\x02\0\x10\0data" + len(data).to_bytes(4, "little")
    source = io.BytesIO(header + data + bytes(300_000))
    messages = analysis.messages(
        source.read1, analysis.StreamParameters.of("wav"), analysis.ANALYSTS["music"](analysis.Listening(StubDetector()))
    )
    assert len(list(messages)) == 6
    assert source.read() == b""


@pytest.mark.parametrize("after", [b"", bytes(300_000)], ids=["at once", "and much more"])
def test_an_error_is_followed_by_the_end_of_the_source(after):
    """Who still writes audio is not cut off, which could cost it the line that says why."""
    source, sink = io.BufferedReader(Pieces(b"fLaC" + bytes(9000) + after, 1000)), io.BytesIO()
    analysis.run(source, sink, endpoint="music", audio_format="flac")
    assert json.loads(sink.getvalue())["type"] == "error"
    assert source.read() == b""


@pytest.mark.parametrize("size", [1, 997, 1 << 16])
def test_a_length_that_is_too_much(size):
    """What is within it is reported, whatever the pieces are."""
    *frames, error = said(s16(tune(1.0)), "music", "s16le", size, max_session_hours=0.5 / 3600, detector="stub", **RAW_16K)
    assert [message["frame"]["end_time_ms"] for message in frames] == [192, 384]
    assert error == {"type": "error", "error": "The audio could not be processed. It may be corrupted or in an unsupported format."}


class Clock:
    """A clock that stands still but for sleep."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.mark.parametrize(("speed", "seconds"), [(1, 1.92), (10, 0.192), (0.1, 19.2)])
def test_a_pace(speed, seconds):
    clock = Clock()
    pace = analysis.Pace(speed, lambda: clock.now, clock.sleep)
    for frame in range(10):
        pace.reach(192 * (frame + 1))
    assert clock.now == pytest.approx(100 + seconds)
    clock.now += 10 * seconds  # nothing came for a while: what comes then needs not wait
    pace.reach(192 * 11)
    assert clock.now == pytest.approx(100 + 11 * seconds)


def test_every_item_waits_for_its_turn():
    clock = Clock()
    pace = analysis.Pace(2, lambda: clock.now, clock.sleep)
    stream = analysis.messages(
        io.BytesIO(s16(tune(1))).read,
        analysis.StreamParameters.of("s16le", 16000, 1),
        analysis.ANALYSTS["music"](analysis.Listening(StubDetector())),
        pace=pace,
    )
    assert [round(clock.now - 100, 3) for message in stream] == [0.096, 0.192, 0.288, 0.384, 0.48, 0.48]


def test_the_stub_takes_turns():
    *frames, done = said(bytes(2 * FRAME_SAMPLES * 50), "music", "s16le", detector="stub", **RAW_16K)
    assert [message["frame"]["music_prob"] for message in frames] == [0.9] * 25 + [0.1] * 25
    assert done["primary_label"] == "music"


def test_the_detector_never_accuses():
    assert AI_CONFIDENCE_CAP < ACCUSING
    comb = np.zeros(FRAME_SAMPLES, np.float32)
    comb[::64] = 1.0  # lines every 250 Hz: as regular as a spectrum can be
    regularity = Regularity()
    regularity.hear(comb)
    assert 0.2 < regularity.confidence() <= AI_CONFIDENCE_CAP


def test_weights_fit_the_features():
    assert len(NAMES) == len(MUSIC_WEIGHTS) == len(SPEECH_WEIGHTS)


def test_loudness_is_no_feature():
    frames = tune(5).astype(np.float32)[: 20 * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    loud, quiet = SignalDetector(), SignalDetector()
    for frame in frames:
        assert loud.hear(frame).music == pytest.approx(quiet.hear(frame * np.float32(0.1)).music, abs=0.05)


@pytest.mark.parametrize(
    ("counts", "label"),
    [((0, 0, 0), "unknown"), ((9, 0, 0), "neither"), ((9, 3, 3), "music"), ((9, 3, 4), "speech"), ((9, 0, 1), "speech")],
)
def test_labels(counts, label):
    assert primary_label(*counts) == label


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [((0, 0, 0.0), "not-ai-music"), ((4, 2, 0.0), "ai-vocal-music"), ((4, 1, 49.9), "not-ai-music"), ((4, 1, 50.0), "ai-instrumental")],
)
def test_verdicts(evidence, verdict):
    assert primary_verdict(*evidence) == verdict


def shared_clips() -> list[tuple[str, str]]:
    """Files and truths of the shared audio that an endpoint takes."""
    with (SHARED_AUDIO / "catalogue.csv").open() as catalogue:
        return [(row["file"], row["truth"]) for row in csv.DictReader(catalogue) if row["truth"] in {"music", "speech"}]


@pytest.mark.torture
@pytest.mark.skipif(not (SHARED_AUDIO / "catalogue.csv").exists(), reason="the shared audio is not beside this repository")
def test_real_music_and_speech_are_told_apart():
    verdicts = {}
    for name, truth in shared_clips():
        path = SHARED_AUDIO / name
        sidecar = SHARED_AUDIO / f"{name}.json"
        audio_format = {"wrong-extension.mp3": "ogg"}.get(name, path.suffix[1:])
        if audio_format in set(AudioFormat):
            options = json.loads(sidecar.read_text()) if sidecar.exists() else {"audio_format": audio_format}
            verdicts[name] = said(path.read_bytes(), "music", **options)[-1]["primary_label"] == truth
    right = sum(verdicts.values()) / len(verdicts)
    assert right >= 0.85, [name for name, ok in verdicts.items() if not ok]
