"""The rows of the fault catalogue that concern one session, from the local server to the client's verdict; and the key in none of them."""

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from canary import CANARY_HEAD, everything_logged, surfaces
from connectors.local_velma.faults import parse_faults
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import local_velma
from connectors.local_velma.switches import Switches
from fault_rows import LONG, PATIENT, Failing, Kept, Row
from moderation.errors import Phase, Scope
from moderation.messages import MusicDone
from moderation.outcomes import Reason
from moderation.refusals import (
    BAD_PARAMETERS,
    CAPACITY,
    INCOMPLETE,
    INSUFFICIENT,
    LOST,
    NOT_PERMITTED,
    NOT_VALIDATED,
    QUOTA,
    SERVICE_FAULT,
    TOO_BIG,
    UNDECODABLE,
    UNKNOWN_CODE,
    WRONG_URL,
    Action,
    classify,
)
from moderation.results import Flag, SessionResult
from moderation.retry import MAX_RETRY_AFTER_S, RetryAfter, RetryRules
from moderation.violations import Breach
from velma_services import AI_MUSIC, CORRUPTED, KEY, RAW, SECOND, client_of, pieces
from velma_services import NOT_PERMITTED as NOT_PERMITTED_TEXT

pytestmark = pytest.mark.net

CONNECTING, ADMITTED, STREAMING, DRAINING = Phase.CONNECTING, Phase.ADMITTED, Phase.STREAMING, Phase.DRAINING
REFUSED_UPGRADE = {"phase": CONNECTING, "close_code": None, "protocol": None}
MONTHLY, CREDITS = "Monthly usage limit reached.", "Insufficient credits."
TRY_AGAIN = "Unable to validate request. Please try again."
HALF_AN_ERROR = replace(PATIENT, error_s=0.3, close_s=0.3)
NO_PROGRESS = replace(PATIENT, progress_s=1.5, close_s=0.3)
NO_DONE = replace(PATIENT, done_s=1.5, done_share=0.0, close_s=0.3)
FIVE_FRAMES = 960 / 3_600_000
"""Audio-hours."""


def closed(code: int | None, text: str | None = None, phase: Phase = ADMITTED) -> dict[str, Any]:
    return {"close_code": code, "text": text, "phase": phase, "http_status": None, "protocol": None}


def broken(breach: Breach, phase: Phase = STREAMING) -> dict[str, Any]:
    return {"protocol": breach, "close_code": None, "text": None, "phase": phase}


def stalled(at_ms: int, phase: Phase) -> dict[str, Any]:
    return {"detail": f"nothing moved at {at_ms} ms of audio", "close_code": None, "text": None, "protocol": None, "phase": phase}


FAILING = [
    *[Failing((17,), f"refuse={status}", cause=NOT_PERMITTED, facts=REFUSED_UPGRADE | {"http_status": status}) for status in (401, 403)],
    Failing((18,), "refuse=429:7", cause=CAPACITY, facts=REFUSED_UPGRADE | {"http_status": 429, "retry_after": 7.0}),
    Failing((18,), "refuse=503:7200", cause=SERVICE_FAULT, facts=REFUSED_UPGRADE | {"http_status": 503, "retry_after": 7200.0}),
    Failing((18,), "refuse=503", cause=SERVICE_FAULT, facts=REFUSED_UPGRADE | {"http_status": 503, "retry_after": None}),
    *[
        Failing((19,), f"refuse={status}", cause=WRONG_URL, facts=REFUSED_UPGRADE | {"http_status": status})
        for status in (301, 302, 307, 308)
    ],
    *[Failing((20,), f"refuse={status}", cause=WRONG_URL, facts=REFUSED_UPGRADE | {"http_status": status}) for status in (400, 404, 426)],
    # closed without done
    Failing((21,), "close=1000@done", cause=INCOMPLETE, facts=closed(1000, None, DRAINING)),
    Failing((21,), "close=1000@items=5", LONG, cause=INCOMPLETE, facts=closed(1000, None, STREAMING)),
    Failing((21,), "close=1000@upgrade", cause=INCOMPLETE, facts=closed(1000)),
    Failing((22,), "close=1001@done", cause=SERVICE_FAULT, facts=closed(1001, None, DRAINING)),
    Failing((22,), "close=1001@items=5", LONG, cause=SERVICE_FAULT, facts=closed(1001, None, STREAMING)),
    *[Failing((23,), f"close={code}@items=1", LONG, cause=INCOMPLETE, facts=closed(code, None, STREAMING)) for code in (1002, 1007)],
    Failing((23,), "badframe", LONG, cause=INCOMPLETE, facts=broken(Breach.BAD_FRAME)),
    Failing((23, 42), "bad_utf8", LONG, cause=INCOMPLETE, facts=broken(Breach.BAD_FRAME)),
    Failing((24,), "close=1003:Invalid num_channels=12. Must be between 1 and 8", cause=BAD_PARAMETERS, facts={"close_code": 1003}),
    Failing((26,), "abrupt=4029@items=5", LONG, cause=LOST, facts={"close_code": 1006, "text": None, "protocol": None}),
    Failing((26,), "abrupt=4003@bytes=65536", LONG, cause=LOST, facts=closed(1006)),
    Failing((26, 31), "abrupt", cause=LOST, facts=closed(1006), organisation={"api_keys": ()}),
    Failing((27,), "close=1009@bytes=65536", LONG, cause=TOO_BIG, facts=closed(1009)),
    Failing((28,), "close=1011@items=5", LONG, cause=SERVICE_FAULT, facts=closed(1011, "Internal server error", STREAMING)),
    *[Failing((29,), f"close={code}@items=5", LONG, cause=SERVICE_FAULT, facts=closed(code, None, STREAMING)) for code in (1012, 1013)],
    Failing((30,), "close=4002@items=5", LONG, cause=UNDECODABLE, facts=closed(4002, CORRUPTED, STREAMING)),
    # keys, limits, credits
    Failing((31,), "", cause=NOT_PERMITTED, facts=closed(4003, NOT_PERMITTED_TEXT), organisation={"api_keys": ()}),
    Failing((31,), f"close=4003:{TRY_AGAIN}", cause=NOT_VALIDATED, facts=closed(4003, TRY_AGAIN)),
    Failing((31,), "text_variant+close=4003", cause=NOT_PERMITTED, facts=closed(4003, "THIS REQUEST IS NOT PERMITTED")),
    Failing((31,), "", cause=CAPACITY, facts=closed(4029, "Too many concurrent connections."), organisation={"max_connections": 0}),
    Failing((31, 76), "revoke_at=5", LONG, cause=NOT_PERMITTED, facts=closed(4003, NOT_PERMITTED_TEXT, STREAMING)),
    Failing((31, 76), "revoke@bytes=65536", LONG, cause=NOT_PERMITTED, facts={"close_code": 4003, "text": NOT_PERMITTED_TEXT}),
    Failing((32,), "", cause=QUOTA, facts=closed(4029, CREDITS), organisation={"credit_hours": 0.0}),
    Failing((32,), "", LONG, cause=QUOTA, facts=closed(4029, CREDITS, STREAMING), organisation={"credit_hours": FIVE_FRAMES}),
    Failing((32, 35), "silent=4029@items=5", LONG, cause=INSUFFICIENT, facts=closed(4029, None, STREAMING)),
    Failing((32, 53), "upgrade_then_limit", LONG, cause=QUOTA, facts=closed(4029, MONTHLY)),
    Failing((53,), "", LONG, cause=QUOTA, facts=closed(4029, MONTHLY, STREAMING), organisation={"monthly_hours": FIVE_FRAMES}),
    *[Failing((33,), f"close={code}@items=5", cause=UNKNOWN_CODE, facts={"close_code": code}) for code in (3999, 4004, 4030, 4031, 4777)],
    # half of an error
    Failing(
        (34,),
        "error_noclose=1011@items=5",
        LONG,
        deadlines=HALF_AN_ERROR,
        cause=SERVICE_FAULT,
        facts=closed(None, "Internal server error", STREAMING),
    ),
    Failing((34,), "error_noclose=4002", deadlines=HALF_AN_ERROR, cause=UNDECODABLE, facts=closed(None, CORRUPTED)),
    Failing(
        (34,),
        "error_noclose",
        deadlines=HALF_AN_ERROR,
        cause=NOT_PERMITTED,
        facts=closed(None, NOT_PERMITTED_TEXT),
        organisation={"api_keys": ()},
    ),
    Failing((34,), "error_noclose=4999:Something else.", deadlines=HALF_AN_ERROR, cause=INCOMPLETE, facts=closed(None, "Something else.")),
    Failing((35,), "silent=1003", cause=BAD_PARAMETERS, facts=closed(1003)),
    Failing((35,), "silent=4002@items=5", LONG, cause=UNDECODABLE, facts=closed(4002, None, STREAMING)),
    Failing((35,), "silent", cause=NOT_PERMITTED, facts=closed(4003), organisation={"api_keys": ()}),
    # nothing more comes
    Failing((36,), "stall_after=5", LONG, deadlines=NO_PROGRESS, cause=INCOMPLETE, facts=stalled(960, STREAMING)),
    Failing((36,), "stall@upgrade", LONG, deadlines=NO_PROGRESS, cause=INCOMPLETE, facts=stalled(0, ADMITTED)),
    Failing((37,), "stall@done", deadlines=NO_DONE, cause=INCOMPLETE, facts=stalled(1920, DRAINING)),
    Failing((37,), "done_delay=30", deadlines=NO_DONE, cause=INCOMPLETE, facts=stalled(1920, DRAINING)),
    # what is no message
    Failing((42,), "malformed", cause=INCOMPLETE, facts={"protocol": Breach.NOT_JSON}),
    Failing((42,), "malformed@done", cause=INCOMPLETE, facts={"protocol": Breach.NOT_JSON, "phase": DRAINING}),
    Failing((42,), "deep", cause=INCOMPLETE, facts={"protocol": Breach.NOT_JSON}),
    Failing((43,), "binary", cause=INCOMPLETE, facts={"protocol": Breach.BINARY_MESSAGE}),
    Failing((44,), "missing=all", cause=INCOMPLETE, facts={"protocol": Breach.NO_MEASUREMENT}),
    Failing((44,), "null=all", cause=INCOMPLETE, facts={"protocol": Breach.NO_MEASUREMENT}),
    Failing((46,), "nan", cause=INCOMPLETE, facts={"protocol": Breach.NOT_JSON}),
    Failing((46,), "nan@done", cause=INCOMPLETE, facts={"protocol": Breach.NOT_JSON, "phase": DRAINING}),
    Failing((46,), "range", cause=INCOMPLETE, facts={"protocol": Breach.OUT_OF_RANGE}),
    Failing((46,), "string", cause=INCOMPLETE, facts={"protocol": Breach.WRONG_TYPE}),
    Failing((46,), "string@done", cause=INCOMPLETE, facts={"protocol": Breach.WRONG_TYPE, "phase": DRAINING}),
    Failing((49,), "done_early", LONG, cause=INCOMPLETE, facts=broken(Breach.DONE_BEFORE_END)),
]


def is_(**facts: Any):
    def looks(result: SessionResult) -> None:
        assert {name: getattr(result, name) for name in facts} == facts

    return looks


def done_is(**fields: Any):
    def looks(result: SessionResult) -> None:
        assert {name: getattr(result.done, name) for name in fields} == fields

    return looks


def starts_are(*frames: int):
    def looks(result: SessionResult) -> None:
        assert [start // 192 for start, _ in result.columns.spans()] == [*frames]

    return looks


def all_ten(result: SessionResult) -> None:
    starts_are(*range(10))(result)
    assert result.close_code == 1000


def a_null(result: SessionResult) -> None:
    values = result.columns.measures["music_prob"]
    assert [math.isnan(value) for value in values] == [False, True] + [False] * 8


def nothing_to_judge(result: SessionResult) -> None:
    assert isinstance(result.done, MusicDone)
    assert (len(result.columns), result.sufficient, result.done.primary_label) == (0, False, "unknown")


KEPT = [
    Kept((37,), "done_delay=1", deadlines=replace(PATIENT, progress_s=0.5), looks=all_ten),
    Kept((37,), "done_delay=0.5", deadlines=replace(PATIENT, done_s=0.01, done_share=10), looks=all_ten),
    Kept((36,), "buffer=1.5", looks=all_ten),
    Kept(
        (43, 79),
        "unknown_type",
        flags={Flag.SHAPE},
        looks=is_(extra={"unknown_messages": {"progress": 1}, "unknown_sample": '{"type": "progress", "percent": 50}'}),
    ),
    Kept((44,), "null", flags={Flag.MISSING}, looks=a_null),
    Kept((44,), "missing", flags={Flag.MISSING}, looks=a_null),
    Kept((44,), "null@done", flags={Flag.MISSING}, looks=done_is(music_pct=None, speech_pct=0.0)),
    Kept((44,), "null=all@done+missing@done", flags={Flag.MISSING}, looks=done_is(music_pct=None, speech_pct=None, frame_count=10)),
    Kept((45, 79), "extra", flags={Flag.SHAPE}, looks=is_(extra={"mood": "calm"})),
    Kept((45, 79), "extra@done", flags={Flag.SHAPE}, looks=is_(extra={"mood": "calm"})),
    Kept((46,), "range@done", flags={Flag.RANGE}, looks=done_is(music_pct=101.5)),
    Kept((46,), "float_times+float_times@done", looks=all_ten),
    Kept((47,), "reorder", flags={Flag.GAP}, looks=starts_are(0, 2, 1, *range(3, 10))),
    Kept((47,), "dup", flags={Flag.DUPLICATE}, looks=all_ten),
    Kept((47,), "drop", flags={Flag.GAP, Flag.COUNT_MISMATCH}, looks=starts_are(0, *range(2, 10))),
    Kept((47,), "ahead=5", flags={Flag.GAP, Flag.AHEAD, Flag.COUNT_MISMATCH}),
    Kept((48,), "done_off=1", flags={Flag.COUNT_MISMATCH}, looks=done_is(frame_count=11)),
    Kept((48,), "duration_off=-1000", flags={Flag.COUNT_MISMATCH}, looks=done_is(duration_ms=920)),
    Kept((49,), "two_done", looks=all_ten),
    Kept((49,), "other_done", flags={Flag.AFTER_DONE}, looks=done_is(duration_ms=1920)),
    Kept((49,), "after_done", flags={Flag.AFTER_DONE}, looks=all_ten),
    Kept((50,), "abrupt_done", looks=is_(close_code=1006)),
    Kept((50,), "done_close=4029", looks=is_(close_code=4029)),
    Kept((51,), "", bytes(SECOND // 10), looks=nothing_to_judge),
    Kept((51, 79), "label=mystery", looks=done_is(primary_label="mystery")),
]


def marked(rows: list[Any]) -> list[Any]:
    return [pytest.param(row, marks=pytest.mark.fault(*row.rows), id=row.name) for row in rows]


@pytest.fixture
def shown(velma, caplog, capfd) -> Iterator[None]:
    """Logs everything at DEBUG; after the test the key is in nothing that client or server, their libraries or asyncio have shown."""
    with everything_logged(caplog):
        yield
    console = capfd.readouterr()
    places = {"log": caplog.text, "stdout": console.out, "stderr": console.err, "journal": velma.path.read_text()}
    assert [place for place, text in places.items() if CANARY_HEAD in text] == []


@pytest.mark.parametrize("row", marked(FAILING))
@pytest.mark.usefixtures("shown")
async def test_a_session_that_fails(velma, row):
    asyncio.get_running_loop().set_debug(True)
    failure = await row.failure(velma)
    assert {fact: getattr(failure, fact) for fact in row.facts} == row.facts
    cause = classify(failure)
    assert (cause, failure.scope) == (row.cause, row.cause.scope)
    assert {line["spec"] for line in velma.named("fault")} == {fault.spec for fault in parse_faults(row.spec)}
    assert [place for place, text in surfaces(failure).items() if CANARY_HEAD in text] == []


@pytest.mark.parametrize("row", marked(KEPT))
@pytest.mark.usefixtures("shown")
async def test_a_result_that_is_kept(velma, row):
    asyncio.get_running_loop().set_debug(True)
    result = await row.session(velma)
    assert result.flags == row.flags
    row.looks(result)
    assert {line["spec"] for line in velma.named("fault")} == {fault.spec for fault in parse_faults(row.spec)}


@pytest.mark.parametrize(
    ("cause", "scope", "action", "reason"),
    [
        (NOT_PERMITTED, Scope.KEY, Action.STOP, Reason.DEFERRED_KEY),
        (NOT_VALIDATED, Scope.SERVICE, Action.RETRY, Reason.DEFERRED_SERVICE),
        (CAPACITY, Scope.ORGANISATION, Action.WAIT, Reason.DEFERRED_SERVICE),
        (QUOTA, Scope.ORGANISATION, Action.STOP, Reason.DEFERRED_QUOTA),
        (INSUFFICIENT, Scope.ORGANISATION, Action.STOP, Reason.DEFERRED_QUOTA),
        (WRONG_URL, Scope.CONFIG, Action.STOP, Reason.NOT_REACHED),
        (TOO_BIG, Scope.CONFIG, Action.STOP, Reason.NOT_REACHED),
        (BAD_PARAMETERS, Scope.CONFIG, Action.QUARANTINE, Reason.BAD_PARAMETERS),
        (UNDECODABLE, Scope.OBJECT, Action.QUARANTINE, Reason.UNDECODABLE),
        (SERVICE_FAULT, Scope.SERVICE, Action.RETRY, Reason.DEFERRED_SERVICE),
        (LOST, Scope.NETWORK, Action.RETRY, Reason.DEFERRED_SERVICE),
        (INCOMPLETE, Scope.SERVICE, Action.RETRY_THEN_QUARANTINE, Reason.INCOMPLETE),
        (UNKNOWN_CODE, Scope.SERVICE, Action.RETRY_THEN_QUARANTINE, Reason.INCOMPLETE),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_follows_from_each_cause(cause, scope, action, reason):
    """What the rows above stand for: all causes that they have are here."""
    assert (cause.scope, cause.action, cause.reason) == (scope, action, reason)


def test_every_row_that_concerns_one_session_is_here():
    named = {number for row in [*FAILING, *KEPT] for number in row.rows}
    apart = {75}
    assert named | apart == {*range(17, 25), *range(26, 38), *range(42, 52), 53, 75, 76, 79}


# -- what is more than an error or a flag -----------------------------------------------------------------------------------------------


@pytest.mark.fault(18)
async def test_a_retry_after_is_a_floor_within_reason(velma):
    for said, floor_s in ((7, 7.0), (7200, MAX_RETRY_AFTER_S)):
        failure = await Row((18,), f"refuse=503:{said}").failure(velma)
        verdict = RetryRules().verdict(classify(failure), 1, 0.0, retry_after=failure.retry_after)
        assert verdict == RetryAfter(floor_s)


@pytest.mark.fault(19)
async def test_a_redirect_is_not_followed(velma):
    """It leads back to the same server, which would take the next connection."""
    await Row((19,), "refuse=307").failure(velma)
    assert [line["event"] for line in velma.events()] == ["fault"]


@pytest.mark.fault(20)
async def test_a_wrong_url_is_shown_without_its_query(velma):
    failure = await Row((20,), "refuse=404").failure(velma)
    assert velma.url in str(failure)
    assert "?" not in str(failure)


@pytest.mark.fault(42)
@pytest.mark.parametrize("spec", ["deep", "malformed", "binary"])
async def test_of_what_cannot_be_read_512_characters_are_kept(velma, spec):
    failure = await Row((42,), spec).failure(velma)
    _, _, sample = failure.detail.partition("): ")
    assert 0 < len(sample) <= 512


@pytest.mark.fault(31)
@pytest.mark.fault(32)
async def test_a_refused_session_has_cost_nothing(velma):
    await Row((31,), "", organisation={"api_keys": ()}).failure(velma)
    await Row((32,), "", organisation={"credit_hours": 0.0}).failure(velma)
    assert velma.organisation.used_ms == 0


@pytest.mark.fault(79)
@pytest.mark.usefixtures("shown")
async def test_windows_in_a_newer_shape():
    switches = Switches(newer_windows=True)
    async with local_velma(Organisation(frozenset({KEY})), detector="stub", switches=switches) as server:
        result = await client_of(server.url).analyse(AI_MUSIC, RAW, pieces(bytes(9 * SECOND)))
    assert (result.wire_shape, len(result.columns), result.flags) == ("2", 2, frozenset())


@pytest.mark.fault(75)
async def test_a_rotated_key(velma):
    """The old key ends in mid-stream, the new one works at once."""
    velma.organisation.add_key(KEY)
    failure = await Row((75,), "revoke_at=5", LONG).failure(velma)
    assert (failure.close_code, failure.phase, classify(failure)) == (4003, STREAMING, NOT_PERMITTED)
    result = await client_of(velma.url).analyse(AI_MUSIC, RAW, pieces(bytes(SECOND)))
    assert result.close_code == 1000
