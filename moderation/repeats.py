"""Faults that distinct objects share: then it is not the objects (rules.md: 1003, and codes that nobody knows; reading that is denied)."""

from collections import defaultdict
from dataclasses import dataclass, field

from moderation.errors import Scope
from moderation.outcomes import Reason, StopCause
from moderation.refusals import BAD_PARAMETERS, UNKNOWN_CODE, Action, Cause

OBJECTS = 3
"""So many distinct objects with the same fault end the run."""
FORBIDDEN = Cause("source_forbidden", Scope.OBJECT, Action.QUARANTINE, Reason.SOURCE_ERROR)
"""S3 does not let these credentials read an object."""
_STOPS = {
    BAD_PARAMETERS.name: StopCause.CONFIGURATION,
    FORBIDDEN.name: StopCause.ACCESS_DENIED,
    UNKNOWN_CODE.name: StopCause.SERVICE_UNREACHABLE,
}
_IN_A_ROW = {BAD_PARAMETERS.name, FORBIDDEN.name}


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
        """A good session: what was refused in a row is refused no more."""
        for key in [key for key in self._objects if key[0] in _IN_A_ROW]:
            del self._objects[key]
