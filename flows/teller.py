"""Says on standard error how far something long is."""

from time import monotonic

from flows.console import stderr

TELL_SECONDS = 2.0
"""How often people hear how far it is, and when for the first time."""


class Teller:
    """Hears after every piece of work how many of how many are done, and says so every two seconds; words are such as "packages read".

    Of how many is None where nobody knows that before the end.
    """

    def __init__(self, words: str) -> None:
        self._words = words
        self._told = monotonic()

    def __call__(self, done: int, of: int | None = None) -> None:
        """So much of so much is done."""
        if monotonic() - self._told >= TELL_SECONDS:
            self._told = monotonic()
            stderr.print(f"{done}{'' if of is None else f' of {of}'} {self._words}", highlight=False)
