"""What a reconciliation says of an object at an endpoint: one symbol, why, and what to do about it. Ranks go from the worst down."""

from enum import Enum, StrEnum


class Symbol(StrEnum):
    """How catalogue, ledger and lake agree about an object, the worst first."""

    DIFFERS = "*"
    EXTRA = "+"
    MISSING = "-"
    QUARANTINED = "q"
    PENDING = "p"
    DONE = "="
    SKIPPED = " "
    """There is nothing to analyse: no object as the others are."""

    @property
    def is_explained(self) -> bool:
        """Whether nobody needs to look into it."""
        return self not in {Symbol.DIFFERS, Symbol.EXTRA, Symbol.MISSING}

    @property
    def rank(self) -> int:
        """Its place in this list: of two symbols of an object the smaller one counts."""
        return list(Symbol).index(self)


_VERIFY = "see soundcheck verify, and restore the file it names"
_REBUILD = "stop every run, then soundcheck ledger rebuild"
_SCAN = "scan again"
_RESTORE = "restore the files of its package; where they are lost, soundcheck ledger rebuild, then a scan streams and pays for it anew"


class Why(Enum):
    """Why an object has its symbol, in words, and what to do about it; empty where there is nothing to do."""

    OTHER_OBJECT = Symbol.DIFFERS, "ledger and summary know its session as one of another object, endpoint or parameters", _VERIFY
    OTHER_STATE = Symbol.DIFFERS, "it has a summary, and the ledger a session that failed or was lost", _REBUILD
    OTHER_COST = Symbol.DIFFERS, "the ledger has booked another duration than its summary says", _VERIFY
    OTHER_ITEMS = Symbol.DIFFERS, "it has another number of items than its summary says", _VERIFY
    TWICE = Symbol.DIFFERS, "it has several results that nobody asked for by --force", "keep them: views show the newest; report it"
    ERASED = Symbol.EXTRA, "it was erased by request, and rows of it are there", "soundcheck erase it again"
    UNBOOKED = Symbol.EXTRA, "it has a summary that the ledger does not know", f"take it away where it is not soundcheck's; else {_REBUILD}"
    UNLISTED = Symbol.EXTRA, "it has a result, and no listing has ever had it", "restore the manifests below _runs/, or take it away"
    LOST = Symbol.MISSING, "the ledger has its result as published, and it has no summary", _RESTORE
    VANISHED = Symbol.MISSING, "it was done when it was planned, and neither ledger nor lake has it now", _RESTORE
    UNTOLD = (
        Symbol.MISSING,
        "its run came to its end, and nothing says what became of it",
        f"{_SCAN}: it may have gone from its source meanwhile",
    )
    HELD = Symbol.QUARANTINED, "a person has to look at it", "see soundcheck quarantine"
    STREAMS = Symbol.PENDING, "it streams, or its worker has died", ""
    UNPUBLISHED = Symbol.PENDING, "its result waits in the spool", f"{_SCAN} on the same host where no run is at work"
    UNCONFIRMED = Symbol.PENDING, "it is published, and the ledger learns it from the next run", ""
    MEANWHILE = Symbol.PENDING, "it came while this looked", ""
    UNPLANNED = Symbol.PENDING, "its run has listed it and not planned it", f"{_SCAN} where no run is at work"
    UNENDED = Symbol.PENDING, "its run has not ended", f"{_SCAN} where no run is at work"
    DEFERRED = Symbol.PENDING, "its run has left it for a later one", _SCAN
    NOT_REACHED = Symbol.PENDING, "a bound or a change has kept it out of the plan", _SCAN
    RELEASED = Symbol.PENDING, "it was released from quarantine since it was planned", _SCAN
    DONE = Symbol.DONE, "done once", ""
    EARLIER = Symbol.DONE, "done once; since then its key has gone, or has another version or other parameters", ""
    SKIPPED = Symbol.SKIPPED, "there is nothing to analyse", ""

    def __init__(self, symbol: Symbol, words: str, remedy: str) -> None:
        self.symbol = symbol
        self.words = words
        self.remedy = remedy
