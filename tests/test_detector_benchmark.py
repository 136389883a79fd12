"""The benchmark of detectors: its figures on known answers, and a folder with a truth file from end to end."""

import csv
import json
import runpy
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from tasks.sample_sounds import Piece, music, talk

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "detector.py"
RATE = 16_000


@pytest.fixture(scope="module")
def benchmark():
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        ([0.1, 0.9], [0, 1], 1.0),
        ([0.9, 0.1], [0, 1], 0.0),
        ([0.5, 0.5, 0.5], [0, 1, 1], 0.5),
        ([0.2, 0.4, 0.4, 0.8], [0, 0, 1, 1], 0.875),
    ],
)
def test_auc_is_the_chance_of_the_right_order(benchmark, scores, truth, expected):
    assert benchmark["auc"](np.array(scores), np.array(truth, bool)) == expected


def test_auc_of_one_class_alone_is_none(benchmark):
    assert np.isnan(benchmark["auc"](np.array([0.1, 0.2]), np.array([True, True])))


def test_a_span_holds_the_frames_whose_middle_is_in_it(benchmark):
    truth = benchmark["spanned"]("0-300 speech; 672-1000 mixed;", 6)
    assert truth.astype(int).tolist() == [[1, 0], [1, 0], [0, 0], [1, 1], [1, 1], [0, 0]]


def s16(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(s16(samples))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(5)
    voice, band = talk(rng, 8, RATE), music(rng, 8, RATE, Piece())
    (tmp_path / "voice.s16le").write_bytes(s16(voice))
    (tmp_path / "voice.s16le.json").write_text(json.dumps({"audio_format": "s16le", "sample_rate": RATE, "num_channels": 1}))
    write_wav(tmp_path / "band.wav", band)
    write_wav(tmp_path / "both.wav", np.concatenate((voice, band)))
    write_wav(tmp_path / "rest.wav", np.zeros(8 * RATE))
    write_wav(tmp_path / "short.wav", voice[:100])
    (tmp_path / "garbage.flac").write_bytes(b"no audio")
    rows = [
        ("voice.s16le", "speech", ""),
        ("band.wav", "music", ""),
        ("both.wav", "mixed", "0-8000 speech; 8000-16000 music"),
        ("rest.wav", "neither", ""),
        ("short.wav", "speech", ""),
        ("garbage.flac", "music", ""),
        ("gone.wav", "music", ""),
        ("notes.txt", "not audio", ""),
    ]
    with (tmp_path / "catalogue.csv").open("w", newline="") as catalogue:
        csv.writer(catalogue).writerows([("file", "truth", "spans"), *rows])
    return tmp_path


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_a_folder_is_heard_and_reported(folder):
    done = run(folder, "--json", folder / "figures.json")
    assert done.returncode == 0, done.stderr
    assert "reference detector, not Modulate's model" in done.stdout
    found = json.loads((folder / "figures.json").read_text())
    assert found["clips"] == {"speech": 1, "music": 1, "mixed": 1, "neither": 1}
    assert found["clips_with_spans"] == 1
    assert set(found["skipped"]) == {"short.wav", "garbage.flac", "gone.wav"}
    assert found["audio_s"] == pytest.approx(40, abs=1)
    assert {"signal", "stub"} <= found["detectors"].keys() <= {"signal", "pretrained", "stub"}
    signal = found["detectors"]["signal"]
    for name in ("speech", "music"):
        assert signal["classes"][name]["clip"]["auc"]["value"] == 1.0
        assert signal["classes"][name]["frame"]["auc"]["value"] > 0.8
        low, high = signal["classes"][name]["frame"]["accuracy"]["interval"]
        assert 0 < low <= signal["classes"][name]["frame"]["accuracy"]["value"] <= high <= 1
    assert signal["labels"]["speech"] == {"speech": 1}
    assert signal["labels"]["music"] == {"music": 1}
    assert signal["labels"]["neither"] == {"neither": 1}
    assert signal["cpu_s_per_audio_hour"] > found["detectors"]["stub"]["cpu_s_per_audio_hour"]


def test_a_folder_without_a_truth_file_is_refused(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    assert "has no catalogue.csv" in done.stderr
