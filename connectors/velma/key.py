"""The key to the paid account, kept out of everything that can be shown or stored."""

import json
from collections.abc import Callable
from hmac import compare_digest
from typing import NoReturn
from urllib.parse import quote, quote_plus

from moderation.errors import ConfigurationError

REDACTED = "[key]"
MIN_CHARACTERS = 8
"""A shorter key would be found, and taken out, inside the words and figures of every message."""


class ApiKey:
    """The key to the paid account. Nothing that can be shown or stored holds it: only `reveal` gives it, to the function that connects."""

    __slots__ = ("_reveal", "_spellings")

    def __init__(self, key: str) -> None:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigurationError("the API key is empty or has characters that no key has: check where it was copied from")
        if len(key) < MIN_CHARACTERS:
            raise ConfigurationError(
                f"the API key has fewer than {MIN_CHARACTERS} characters: check that all of it was copied; a local server takes longer ones"
            )
        spellings = frozenset({key, quote(key), quote(key, safe=""), quote_plus(key), json.dumps(key)[1:-1]})
        self._reveal: Callable[[], str] = lambda: key
        self._spellings: Callable[[], frozenset[str]] = lambda: spellings

    def __repr__(self) -> str:
        return "ApiKey(...)"

    def is_same(self, other: "ApiKey") -> bool:
        """Whether both are the same text."""
        return compare_digest(self._reveal(), other.reveal())

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key is never pickled: hand on where it is found instead")

    def reveal(self) -> str:
        """The key as plain text."""
        return self._reveal()

    def redact(self, text: str) -> str:
        """The text without the key, however a URL or JSON would spell it."""
        for spelling in self._spellings():
            text = text.replace(spelling, REDACTED)
        return text

    def redact_message(self, message: str | bytes) -> str | bytes:
        """A message of the service without the key: that is ASCII, so every other byte of a binary one stays as it is."""
        if isinstance(message, str):
            return self.redact(message)
        return self.redact(message.decode("latin-1")).encode("latin-1")
