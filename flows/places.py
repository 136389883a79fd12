"""Where results, ledger, spool and logs are, by the settings."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from connectors.lake.names import SPOOL_FOLDER
from connectors.lake.store import ResultStore
from connectors.ledger import Ledger
from connectors.spool import SharedSpool, Spool
from flows.setting_types import SpoolPlace
from flows.settings import Settings
from moderation.errors import ConfigurationError, ResultsNotWritable
from moderation.identity import lake_id


def results_of(settings: Settings) -> str:
    """Where results go. Raises ConfigurationError when nobody said."""
    if not settings.results:
        raise ConfigurationError("no results folder: give --results URL, or set SOUNDCHECK_RESULTS to a folder or s3://bucket/prefix")
    return settings.results if "://" in settings.results else str(Path(settings.results).resolve())


def open_ledger(settings: Settings) -> AbstractAsyncContextManager[Ledger]:
    """The ledger of the settings."""
    return Ledger.open(ledger_place(settings), rules=settings.gate_rules(), lease_ms=round(settings.lease_seconds * 1000))


def ledger_place(settings: Settings) -> Path | str:
    """Where the ledger is: a file in the state folder, or the URL of a database, which may hold its password."""
    return settings.ledger_url.get_secret_value() if settings.ledger_url else state_of(settings) / "ledger.db"


def open_spool(settings: Settings, results: ResultStore) -> Spool:
    """Where sessions wait that are not published yet: on this host, or with the results for every host."""
    if settings.spool_place() is SpoolPlace.RESULTS:
        return SharedSpool(results, SPOOL_FOLDER, lake_id(results.url))
    return Spool(spool_of(settings))


def spool_of(settings: Settings) -> Path:
    """The folder of this host for sessions that are not published yet."""
    return state_of(settings) / "spool"


def state_of(settings: Settings) -> Path:
    """The folder of ledger, spool and logs, made when missing. Raises ResultsNotWritable where that fails."""
    folder = settings.state_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsNotWritable(f"the state folder {folder} cannot be made ({error.strerror}): set state_dir to another one") from error
    return folder
