"""What a service says that nobody has told us about: kept for people, within bounds (service.md, decisions 8 and 9)."""

import json
from collections import Counter
from typing import Any

from moderation.messages import UnknownMessage

MAX_TYPES = 32
"""Unknown types told apart; what is beyond them is counted under OTHER_TYPES."""
OTHER_TYPES = "..."
MAX_EXTRA_CHARACTERS = 16 * 1024
"""Of unknown fields, as JSON: a field with another name in every message must not fill the memory."""


class Drift:
    """Unknown messages, counted with one sample, and unknown fields, each kept as it came first."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.sample: str | None = None
        self.fields: dict[str, Any] = {}
        self._room = MAX_EXTRA_CHARACTERS

    def note_message(self, message: UnknownMessage) -> None:
        """Count a message of unknown type."""
        told_apart = message.type in self.messages or len(self.messages) < MAX_TYPES
        self.messages[message.type if told_apart else OTHER_TYPES] += 1
        self.sample = self.sample or message.sample

    def note_fields(self, fields: dict[str, Any]) -> None:
        """Keep the fields that are new and fit."""
        for name, value in fields.items():
            if name not in self.fields and (size := len(name) + len(json.dumps(value))) <= self._room:
                self.fields[name] = value
                self._room -= size

    def summary(self) -> dict[str, Any]:
        """All of it, as the `extra` of a result."""
        if not self.messages:
            return self.fields
        return self.fields | {"unknown_messages": dict(self.messages), "unknown_sample": self.sample}
