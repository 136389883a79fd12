"""Publishing into stores that refuse, break off, forget to answer or are full: repeated, it ends as if nothing had been."""

import random

import pytest

from bare_globs import seen
from connectors.lake.store import open_store
from connectors.s3 import S3Settings, s3_client
from copies import Copies, Sound
from crashing import Calls
from faulty_s3 import Fault, FaultyS3
from moderation.errors import ResultsNotWritable, UnreachableError
from publishing import Place
from small_disk import fill, small_disk


def until_published(place: Place, direct: Place) -> int:
    """Run after run, under the eyes of a reader of the store itself, until one ends well; how many did not."""
    for failed in range(100):
        try:
            place.recover(Calls(watch=lambda: seen(direct.store, direct.folder / "mirror")))
        except UnreachableError:
            seen(direct.store, direct.folder / "mirror")
        else:
            return failed
    raise AssertionError("it does not end")


def through(faulty: FaultyS3, place: Place, attempts: int) -> Place:
    """The same place, but that its requests go this way."""
    client = s3_client(S3Settings(endpoint_url=faulty.endpoint_url, region="us-east-1", max_attempts=attempts))
    return Place(place.folder, open_store(place.store.url, client), place.shared)


@pytest.mark.fault(68, 69)
@pytest.mark.parametrize("shared", [False, True], ids=["state", "shared"])
@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_fault_at_any_request_is_repaired_by_repeating(local_s3, s3, tmp_path, shared):
    copies = Copies(tmp_path, shared=shared, s3=s3)
    sound = Sound(copies)
    with FaultyS3(local_s3.endpoint_url) as faulty:
        place = copies.another()
        until_published(through(faulty, place, 1), place)
        requests = faulty.requests
        for at in range(1, requests + 1):
            for fault in Fault:
                place = copies.another()
                faulty.requests, faulty.choose = 0, {at: fault}.get
                assert until_published(through(faulty, place, 1), place) <= 1
                sound.check(place)
                copies.forget(place)


@pytest.mark.fault(68, 69)
@pytest.mark.parametrize(
    ("rounds", "attempts", "one_in", "shared"),
    [(1, 1, 40, False), pytest.param(20, 2, 8, True, marks=[pytest.mark.torture, pytest.mark.timeout(3600)])],
)
@pytest.mark.torture
def test_bad_days_of_s3_are_outlasted(local_s3, s3, tmp_path, rounds, attempts, one_in, shared):
    """One request in so many goes wrong, in one way or another; botocore tries each so often, and the next run goes on."""
    copies = Copies(tmp_path, shared=shared, s3=s3)
    sound = Sound(copies)
    with FaultyS3(local_s3.endpoint_url) as faulty:
        for seed in range(rounds):
            draw = random.Random(seed)
            faulty.choose = lambda _, draw=draw: draw.choice(list(Fault)) if draw.random() < 1 / one_in else None
            place = copies.another()
            until_published(through(faulty, place, attempts), place)
            sound.check(place)


@pytest.mark.fault(65)
@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shared", [False, True], ids=["state", "shared"])
def test_a_disk_that_fills_while_results_are_published_loses_nothing(tmp_path, shared):
    try:
        disk = small_disk(tmp_path / "disk", 8)
        with disk as results:
            copies = Copies(tmp_path, shared=shared, results=results)
            sound = Sound(copies)
            failed = 0
            for pages in range(45):
                place = copies.another()
                fill(results / "ballast", pages * 4096)
                try:
                    place.recover(Calls(watch=lambda place=place: seen(place.store, place.folder / "mirror")))
                except ResultsNotWritable:
                    failed += 1
                seen(place.store, place.folder / "mirror")
                (results / "ballast").unlink()
                place.recover()
                sound.check(place)
                copies.forget(place)
            assert failed
    except LookupError as absent:
        pytest.skip(str(absent))
