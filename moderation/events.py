"""Events for other programs: an envelope with a version and an id, signed with a secret, and when a delivery is tried again.

Delivery is at least once, in no order: whoever receives events keeps their ids, and passes over one that is known.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

SCHEMA_VERSION = 1
"""Of the body; it counts up when a member is taken away or means something else."""
SIGNATURE_HEADER = "X-Soundcheck-Signature"
EVENT_HEADER = "X-Soundcheck-Event-Id"
STEP_S = 1.0
CEILING_S = 30.0


class EventKind(StrEnum):
    """What an event is about."""

    NOTICE = "notice"
    """Something that a person should know: a run that has stopped, a cap that is nearly spent."""
    DECISIONS_CHANGED = "decisions_changed"
    """What is to become of some objects is another thing than before."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened once: the same event has the same id, whoever tells it. text says it to people in a sentence."""

    event_id: str
    kind: EventKind
    org: str
    at: datetime
    text: str
    facts: Mapping[str, Any]

    def body(self) -> bytes:
        """The event as it is sent: JSON, the same bytes however often."""
        head = {
            "schema_version": SCHEMA_VERSION,
            "event_id": self.event_id,
            "event": self.kind.value,
            "at": self.at.isoformat(),
            "org": self.org,
        }
        return json.dumps(head | dict(self.facts) | {"text": self.text}).encode()


def signature(secret: str, body: bytes) -> str:
    """What the header says of a body: sha256= and the HMAC-SHA256 of its bytes in hex digits."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def is_signed(secret: str, body: bytes, told: str) -> bool:
    """Whether a signature is that of the body, compared in constant time."""
    return hmac.compare_digest(signature(secret, body).encode(), told.encode())


def pause_s(tries: int, chance: float) -> float:
    """Seconds until the next try after so many: full jitter, chance being a random number in [0, 1)."""
    return chance * min(CEILING_S, STEP_S * 2.0**tries)
