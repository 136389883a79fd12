"""Faults that distinct objects share: then it is not the objects (rules.md: 1003, and codes that nobody knows)."""

from collections import defaultdict
from dataclasses import dataclass, field

from moderation.outcomes import StopCause
from moderation.refusals import BAD_PARAMETERS, UNKNOWN_CODE, Cause

OBJECTS = 3
"""So many distinct objects with the same fault end the run."""
_STOPS = {BAD_PARAMETERS.name: StopCause.CONFIGURATION, UNKNOWN_CODE.name: StopCause.SERVICE_UNREACHABLE}


@dataclass(slots=True)
class Repeats:
    """The objects of a run by the fault that they had last, for the faults that end a run when they repeat."""

    _objects: defaultdict[tuple[str, int | None], set[str]] = field(default_factory=lambda: defaultdict(set))

    def failed(self, object_id: str, cause: Cause, close_code: int | None) -> StopCause | None:
        """Count a failure; what ends the run where it is one too many."""
        stop = _STOPS.get(cause.name)
        if stop is None:
            return None
        objects = self._objects[cause.name, close_code]
        objects.add(object_id)
        return stop if len(objects) >= OBJECTS else None

    def done(self) -> None:
        """A good session: parameters that were refused in a row are refused no more."""
        for key in [key for key in self._objects if key[0] == BAD_PARAMETERS.name]:
            del self._objects[key]
