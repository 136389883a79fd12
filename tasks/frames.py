"""Tables as polars frames, and those that a run leaves in its own folder: its manifest, its plan, and what it has chosen."""

from io import BytesIO

import polars as pl

from connectors.lake.packages import run_file
from connectors.lake.store import ResultStore


def frame_of(table: object) -> pl.DataFrame:
    """An Arrow table as a frame."""
    frame = pl.from_arrow(table)  # type: ignore[arg-type]  # an Arrow table exports itself
    assert isinstance(frame, pl.DataFrame), "a table has columns"
    return frame


def has_frame(results: ResultStore, run_id: str, stem: str) -> bool:
    """Whether a run has left such a file."""
    return results.exists(_name(run_id, stem))


def find_frame(results: ResultStore, run_id: str, stem: str, columns: list[str] | None = None) -> pl.DataFrame | None:
    """Such a file of a run, or some columns of it; None where there is none."""
    data = results.get(_name(run_id, stem))
    return None if data is None else pl.read_parquet(data, columns=columns)


def read_frame(results: ResultStore, run_id: str, stem: str) -> pl.DataFrame:
    """Such a file of a run that has left it."""
    frame = find_frame(results, run_id, stem)
    assert frame is not None, f"run {run_id} has no {stem}"
    return frame


def keep_frame(results: ResultStore, run_id: str, stem: str, frame: pl.DataFrame) -> None:
    """Leave such a file. Raises what the store raises."""
    out = BytesIO()
    frame.write_parquet(out)
    results.put(_name(run_id, stem), out.getvalue())


def frame_address(results: ResultStore, run_id: str, stem: str) -> str:
    """Where such a file lies, for a reader of addresses."""
    return results.address(_name(run_id, stem))


def _name(run_id: str, stem: str) -> str:
    return run_file(run_id, f"{stem}.parquet")
