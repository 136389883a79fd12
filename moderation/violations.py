"""What a service can do that breaks the protocol, each by its name. After one such, a session has no result (service.md, decision 10)."""

from enum import StrEnum

SAMPLE_CHARACTERS = 512
"""Of what came, kept for people (service.md, decision 10)."""


class Breach(StrEnum):
    """A promise of the protocol that was broken: the name stands in errors and `attempts`, the sentence is the promise."""

    BAD_FRAME = "bad_frame"
    """WebSocket frames follow RFC 6455, and are not larger than a message may be."""
    BINARY_MESSAGE = "binary_message"
    """Every message of the service is text."""
    NOT_JSON = "not_json"
    """A message is one JSON value: no NaN, no infinity, no half surrogate, no nest that no parser takes."""
    NO_TYPE = "no_type"
    """A message is an object whose `type` is a word."""
    NO_ITEM = "no_item"
    """An item message holds an object under the name of its type."""
    WRONG_TYPE = "wrong_type"
    """A known field holds what it is said to hold: whole numbers for times and counts, words for labels; and items have their times."""
    TOO_DEEP = "too_deep"
    """An unknown field, and a reason, nest no deeper than a person could read."""
    BAD_TIMES = "bad_times"
    """An item starts in the audio, ends after its start, and lies within a year."""
    OUT_OF_RANGE = "out_of_range"
    """An item's percentages are 0 to 100, its probabilities and confidences 0 to 1."""
    NO_MEASUREMENT = "no_measurement"
    """An item measures something."""
    DONE_BEFORE_END = "done_before_end"
    """Done answers the end of the stream, and never comes before it."""
    EMPTY_DONE = "empty_done"
    """Done says something."""


class Violation(Exception):
    """A message that breaks the protocol: `name` says which promise, `sample` is the first 512 characters of what came."""

    def __init__(self, name: Breach, message: str | bytes) -> None:
        sample = message if isinstance(message, str) else message.decode("utf-8", "backslashreplace")
        super().__init__(name)
        self.name = name
        self.sample = sample[:SAMPLE_CHARACTERS]
