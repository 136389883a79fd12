"""What people write for a source, and what becomes of it: the same objects from wherever their list comes."""

import csv
import gzip
import hashlib
import io
import json
from datetime import UTC, datetime
from urllib.parse import quote_plus

import pytest

from flows.plan import plan_scan
from flows.request import Portion, Request
from flows.run_settings import ownership
from flows.settings import load_settings
from flows.sources import SourceAddress, SourceKind
from moderation.errors import ConfigurationError
from moderation.outcomes import ExitCode

RAW = json.dumps({"audio_format": "s16le", "sample_rate": 16000, "num_channels": 1}).encode()


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("s3://bucket/a b/", SourceKind.PREFIX, "s3://bucket/a b/"),
        ("inventory:s3://lists/daily/manifest.json", SourceKind.INVENTORY, "s3://lists/daily/manifest.json"),
        ("keys:s3://lists/keys.csv", SourceKind.KEYS, "s3://lists/keys.csv"),
        ("keys:~/keys.parquet", SourceKind.KEYS, "~/keys.parquet"),
        ("./clips", SourceKind.FOLDER, "./clips"),
        ("clips:old", SourceKind.FOLDER, "clips:old"),
    ],
)
def test_a_source_is_what_it_is_written_as(text, kind, address):
    assert SourceAddress.parse(text) == SourceAddress(kind, address)


@pytest.mark.parametrize("text", ["", "keys:", "inventory:", "inventory:manifest.json", "https://bucket/x", "s3:///x"])
def test_what_is_no_source_is_refused_with_what_to_write(text):
    with pytest.raises(ConfigurationError, match="s3://"):
        SourceAddress.parse(text)


def inventory_of(rows):
    """An inventory in CSV: (bucket, key, size, etag, changed) rows; its objects by key."""
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(
        [bucket, quote_plus(key, safe="/"), size, f"{changed:%Y-%m-%dT%H:%M:%S}.000Z", etag] for bucket, key, size, etag, changed in rows
    )
    part = gzip.compress(out.getvalue().encode())
    manifest = {
        "sourceBucket": "catalogue",
        "destinationBucket": "arn:aws:s3:::catalogue",
        "creationTimestamp": str(int(datetime.now(UTC).timestamp() * 1000)),
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, LastModifiedDate, ETag",
        "files": [{"key": "lists/part.csv.gz", "size": len(part), "MD5checksum": hashlib.md5(part, usedforsecurity=False).hexdigest()}],
    }
    text = json.dumps(manifest).encode()
    checksum = hashlib.md5(text, usedforsecurity=False).hexdigest().encode()
    return {"lists/part.csv.gz": part, "lists/manifest.json": text, "lists/manifest.checksum": checksum}


async def test_the_same_objects_from_another_source_are_streamed_no_second_time(world, make_wav, tmp_path):
    for key, seconds in {"one.wav": 1.0, "odd/näh + ?.wav": 1.2}.items():
        world.put(f"clips/{key}", make_wav(seconds, 200 + 100 * seconds))
    world.put("clips/raw.s16le", make_wav(1.6)[44:])
    world.put("clips/raw.s16le.json", RAW)
    first = await world.scan("clips/")
    assert (first.exit_code, first.progress.sessions) == (ExitCode.OK, 6)

    rows = world.ask("SELECT bucket, key, size_bytes, etag, last_modified FROM manifests")
    for key, body in inventory_of(rows).items():
        world.put(key, body)
    (tmp_path / "keys.jsonl").write_text("".join(json.dumps({"Key": row[1]}) + "\n" for row in rows if not row[1].endswith(".json")))
    bucket = Portion(bucket="catalogue")
    for request in (
        Request(("inventory:s3://catalogue/lists/manifest.json",)),
        Request((f"keys:{tmp_path}/keys.jsonl",), bucket),
        Request(("s3://catalogue/clips/odd/", f"keys:{tmp_path}/keys.jsonl"), bucket),
    ):
        again = await plan_scan(world.settings, request)
        assert {name: each["objects"] for name, each in again.counts()["endpoints"].items()} == {
            name: {"done": 3, "sidecar": 1} for name in ("music", "ai_music")
        }


async def test_a_folder_is_scanned_like_a_bucket(world, make_wav, tmp_path):
    folder = tmp_path / "clips"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "one.wav").write_bytes(make_wav(1.0))
    (folder / "two.s16le").write_bytes(make_wav(1.2)[44:])
    (folder / "two.s16le.json").write_bytes(RAW)
    report = await world.scan_request(Request((str(folder),)))
    assert (report.counts()["done"], report.progress.sessions) == (2, 4)
    assert world.ask("SELECT bucket, key FROM music_latest ORDER BY key") == [(str(folder), "deep/one.wav"), (str(folder), "two.s16le")]
    assert (await world.scan_request(Request((str(folder),)))).progress.sessions == 0


async def test_what_is_left_out_is_counted_by_reason_and_a_bound_leaves_the_rest_pending(world, make_wav):
    for number in range(4):
        world.put(f"a/{number}.wav", make_wav(1.0, 200.0 + number))
    world.put("a/preview.wav", make_wav(0.5))
    world.put("a/long.wav", make_wav(9.0))
    portion = Portion(include=("a/*",), exclude=("*preview*",), max_bytes=100_000, limit=3)
    report = await world.scan_request(Request(("s3://catalogue/",), portion))
    counts = report.counts()
    assert counts["left_out"] == {"excluded": 1, "size": 1}
    assert (counts["objects"], counts["done"], counts["pending"]) == (4, 3, 1)
    assert (counts["state"], counts["exit_code"], counts["message"]) == ("Completed", 0, "")
    assert world.velma.journal.counts["done"] == 6


@pytest.mark.parametrize(
    ("second", "cascade", "counted"),
    [
        (bytes(range(256)) * 8, None, {"done": 0, "quarantined": 2, "skipped": 0}),
        ("audio", None, {"done": 1, "quarantined": 1, "skipped": 0}),
        ("audio", "music_pct > 100", {"done": 0, "quarantined": 1, "skipped": 1}),
    ],
)
async def test_equal_keys_in_two_places_are_two_objects(world, make_wav, tmp_path, second, cascade, counted):
    for name, body in {"first": bytes(range(256)) * 8, "second": make_wav(1.0) if second == "audio" else second}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.pcm").write_bytes(body)
    report = await world.scan_request(Request((str(tmp_path / "first"), str(tmp_path / "second"))), cascade=cascade)
    assert {name: report.counts()[name] for name in counted} == counted
    assert report.progress.newly_quarantined == counted["quarantined"]


@pytest.mark.parametrize("portion", [Portion(min_bytes=100_000), Portion(modified_from=datetime(2100, 1, 1, tzinfo=UTC))])
async def test_a_filter_also_holds_for_audio_that_is_named_like_a_sidecar(world, make_wav, portion):
    for key in ("plain.wav", "song.json"):
        world.put(key, make_wav(1.0))
    planned = (await plan_scan(world.settings, Request(("s3://catalogue/",), portion))).counts()
    assert (planned["left_out"].popitem()[1], planned["endpoints"]["music"]["objects"]) == (1, {"filtered": 1})
    report = await world.scan_request(Request(("s3://catalogue/",), portion))
    assert (report.exit_code, report.progress.sessions, report.counts()["skipped"]) == (ExitCode.OK, 0, 1)


async def test_what_a_bound_leaves_hides_nothing_else_that_stays_pending(world, make_wav, tmp_path):
    for number in range(4):
        world.put(f"{number}.wav", make_wav(1.0, 200.0 + number))
    told = {"size": len(make_wav(1.0)), "last_modified": "2026-11-01T00:00:00Z"}
    rows = [{"key": "0.wav", "etag": "of another day", **told}, *({"key": f"{number}.wav"} for number in (1, 2, 3))]
    (tmp_path / "keys.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = await world.scan_request(Request((f"keys:{tmp_path}/keys.jsonl",), Portion(bucket="catalogue", limit=1)), endpoints=["music"])
    assert (report.exit_code, report.counts()["done"], report.counts()["pending"]) == (ExitCode.EXHAUSTED, 1, 3)
    assert report.message == "1 objects stay pending (1 changed): run again for the rest"


async def test_a_filtered_listing_is_another_source_and_hides_nothing_of_the_whole_one(world, make_wav):
    for number in range(3):
        world.put(f"{number}.wav", make_wav(1.0, 200.0 + number))
    await world.scan(endpoints=["music"])
    one = Request(("s3://catalogue/",), Portion(include=("1.wav",), storage_class=("STANDARD",), limit=5))
    await world.scan_request(one, endpoints=["music"])
    assert world.ask("SELECT key, music_outcome FROM catalogue_latest ORDER BY key") == [(f"{number}.wav", "done") for number in range(3)]
    assert world.ask("SELECT DISTINCT source FROM runs ORDER BY source") == [
        ("s3://catalogue/",),
        ("s3://catalogue/, include 1.wav, storage_class STANDARD",),
    ]


def test_instants_without_a_zone_are_utc():
    selection = Portion(modified_from=datetime(2026, 11, 1)).selection()  # noqa: DTZ001 - that is the point
    assert selection.modified_from == datetime(2026, 11, 1, tzinfo=UTC)


TABLES = """
[organisations.acme]
api_key_env = "ACME_KEY"
roots = ["s3://catalogue/acme", "s3://catalogue/shared/acme"]

[organisations.globex]
api_key_env = "GLOBEX_KEY"
roots = ["s3://catalogue/shared", "s3://archive"]

[organisations.rest]
api_key_env = "REST_KEY"
"""


@pytest.mark.parametrize(
    ("org", "own", "foreign"),
    [
        ("acme", ["catalogue/acme/a", "catalogue/shared/acme/a"], ["catalogue/acmeter/a", "catalogue/shared/a", "archive/a", "other/a"]),
        ("globex", ["catalogue/shared/a", "archive/a"], ["catalogue/shared/acme/a", "catalogue/acme/a", "other/a"]),
        ("rest", ["other/a", "catalogue/a"], ["catalogue/acme/a", "archive/a"]),
    ],
)
def test_an_object_belongs_to_the_innermost_root(tmp_path, monkeypatch, org, own, foreign):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soundcheck.toml").write_text(TABLES)
    belongs = ownership(load_settings(org=org))
    assert belongs is not None
    assert all(belongs(*place.split("/", 1)) for place in own)
    assert not any(belongs(*place.split("/", 1)) for place in foreign)


async def test_a_list_leaves_out_what_is_another_organisations(world, make_wav, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soundcheck.toml").write_text(TABLES)
    monkeypatch.setenv("ACME_KEY", "canary-of-acme")
    for key in ("acme/one.wav", "shared/two.wav"):
        world.put(key, make_wav(1.0))
    (tmp_path / "keys.csv").write_text("bucket,key\ncatalogue,acme/one.wav\ncatalogue,shared/two.wav\n")
    counts = (await plan_scan(load_settings(org="acme", results=str(world.results)), "keys:keys.csv")).counts()
    assert (counts["objects"], counts["left_out"]) == (1, {"foreign": 1})
