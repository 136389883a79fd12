from datetime import UTC, datetime
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.lake import parquet
from connectors.lake.parquet import FEW_VALUES, ParquetSink, few_valued, fitted
from connectors.lake.schemas import datasets

FRAMES = datasets()["music_frames"]
MANIFESTS = datasets()["manifests"]
NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


def a_listed(number: int = 0, **more) -> dict:
    place = {"bucket": "b", "key": f"k{number:07d}", "etag": "e", "object_id": f"o{number}", "object_key_id": f"p{number}"}
    return {**place, "size_bytes": number, "last_modified": NOW, **more}


def some_frames(rows: int, distinct: int) -> pa.Table:
    index = range(rows)
    return pa.table(
        {
            "object_id": ["o"] * rows,
            "session_id": ["s"] * rows,
            "frame_index": index,
            "start_time_ms": [192 * place for place in index],
            "end_time_ms": [192 * place + 192 for place in index],
            "music_prob": [place % distinct / distinct for place in index],
            "speech_prob": [place / rows for place in index],
        }
    )


def written(dataset, chunks, **options) -> bytes:
    out = BytesIO()
    with ParquetSink(out, dataset, run_id="r", **options) as sink:
        for rows in chunks:
            sink.write(rows)
    return out.getvalue()


def test_absent_columns_are_null_and_the_rest_is_kept():
    table = fitted(MANIFESTS, [a_listed(1), a_listed(2, storage_class="GLACIER")])
    assert table.schema == MANIFESTS.arrow_schema()
    assert table["storage_class"].to_pylist() == [None, "GLACIER"]
    assert table["last_modified"].to_pylist() == [NOW, NOW]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (a_listed(colour="red"), "manifests has no column colour"),
        ({name: value for name, value in a_listed().items() if name != "etag"}, "manifests.etag must not be null"),
        (a_listed(etag=None), "manifests.etag must not be null"),
        (a_listed(size_bytes="12"), "manifests.size_bytes takes int64"),
        (a_listed(size_bytes=1.5), "manifests.size_bytes takes int64"),
        (a_listed(size_bytes=2**63), "manifests.size_bytes takes int64"),
        (a_listed(key=7), "manifests.key takes string"),
        (a_listed(key="\udcff"), "manifests.key takes string"),
        (a_listed(last_modified="2026-03-01"), "manifests.last_modified takes instant"),
        (a_listed(last_modified=datetime(2026, 3, 1)), "without a time zone"),  # noqa: DTZ001 - the point
    ],
)
def test_rows_that_do_not_fit_are_refused(row, says):
    with pytest.raises(ValueError, match=says):
        fitted(MANIFESTS, [a_listed(), row])


def test_tables_are_held_to_the_schema_too():
    assert fitted(FRAMES, some_frames(3, 2)).schema == FRAMES.arrow_schema()
    with pytest.raises(ValueError, match="no column x"):
        fitted(FRAMES, some_frames(3, 2).append_column("x", [[1, 2, 3]]))
    with pytest.raises(ValueError, match="session_id must not be null"):
        fitted(FRAMES, some_frames(3, 2).drop_columns(["session_id"]))
    with pytest.raises(ValueError, match="start_time_ms takes int64"):
        fitted(FRAMES, some_frames(1, 1).set_column(3, "start_time_ms", [["soon"]]))
    naive = pa.table({name: [value] for name, value in a_listed(last_modified=datetime(2026, 3, 1)).items()})  # noqa: DTZ001 - the point
    with pytest.raises(ValueError, match="without a time zone"):
        fitted(MANIFESTS, naive)


def test_nan_is_null_in_rows_and_tables():
    rows = some_frames(2, 2).to_pylist()
    rows[0]["music_prob"] = float("nan")
    assert fitted(FRAMES, rows)["music_prob"].to_pylist() == [None, 0.5]
    assert fitted(FRAMES, pa.Table.from_pylist(rows))["music_prob"].to_pylist() == [None, 0.5]


def test_a_column_of_few_values_gets_a_dictionary():
    tables = [some_frames(2000, 100)] * 3
    assert few_valued(FRAMES, tables) == ["music_prob", "speech_prob"]
    assert few_valued(FRAMES, [some_frames(FEW_VALUES + 1, 100)]) == ["music_prob"]
    assert few_valued(FRAMES, []) == ["music_prob", "speech_prob"]


def test_the_settings_of_the_design():
    frames = some_frames(300, 10)
    file = pq.ParquetFile(BytesIO(written(FRAMES, [frames], package="p", few_valued=["music_prob"], objects=1)))
    group = file.metadata.row_group(0)
    columns = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert all(column.has_column_index and column.has_offset_index for column in columns.values())
    for name in ("object_id", "session_id", "music_prob"):
        assert "RLE_DICTIONARY" in columns[name].encodings
    assert "BYTE_STREAM_SPLIT" in columns["speech_prob"].encodings
    for name in ("frame_index", "start_time_ms", "end_time_ms"):
        assert "DELTA_BINARY_PACKED" in columns[name].encodings
    assert [sorting.column_index for sorting in group.sorting_columns] == [0, 1, 2]
    assert file.metadata.metadata == {
        b"soundcheck.dataset": b"music_frames",
        b"soundcheck.schema_version": b"1",
        b"soundcheck.run_id": b"r",
        b"soundcheck.package": b"p",
    }


def test_a_flipped_bit_is_found():
    data = bytearray(written(FRAMES, [some_frames(300, 300)]))
    place = pq.ParquetFile(BytesIO(data)).metadata.row_group(0).column(6).data_page_offset + 200
    data[place] ^= 1
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pq.read_table(BytesIO(data), page_checksum_verification=True)


def test_full_row_groups_go_out_as_they_come_and_the_cut_of_calls_does_not_show(monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 100)
    frames = some_frames(250, 10)
    whole = written(FRAMES, [frames])
    assert whole == written(FRAMES, [frames.slice(place, 7) for place in range(0, 250, 7)])
    metadata = pq.ParquetFile(BytesIO(whole)).metadata
    assert [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)] == [100, 100, 50]
    assert pq.read_table(BytesIO(whole)).equals(frames.cast(pq.read_schema(BytesIO(whole))))


def test_a_sink_holds_one_row_group_at_most(monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 100)
    out = BytesIO()
    with ParquetSink(out, MANIFESTS, run_id="r") as sink:
        for number in range(0, 1000, 40):
            sink.write([a_listed(place) for place in range(number, number + 40)])
            assert sink._waiting.num_rows < 100
        assert sink.rows == 1000
    assert pq.read_table(out)["size_bytes"].to_pylist() == list(range(1000))


def test_no_rows_make_a_file_of_the_right_columns():
    assert pq.read_table(BytesIO(written(MANIFESTS, []))).schema.equals(MANIFESTS.arrow_schema())
