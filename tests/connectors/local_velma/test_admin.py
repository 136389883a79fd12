"""The admin API of the local server: who may ask, what it says, and what it changes while sessions are live."""

import json
import re

import aiohttp
import pytest

from connectors.local_velma.journal import Journal
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import LocalVelma, local_velma
from moderation.endpoints import ENDPOINTS
from velma_admin import FRAME, KEY, OTHER, Admin, connected, streaming, the_end, the_rest

pytestmark = pytest.mark.net

WHOSE = "reference detector, not Modulate's model"
NOT_PERMITTED = ("This request is not permitted.", 4003)
SCRIPTED = f"scripted AI verdicts and {WHOSE}"


async def refused(server: LocalVelma, key: str = KEY) -> tuple[str | None, int | None]:
    """The error and the close code of a new connection."""
    async with connected(server, key=key) as connection:
        return await the_end(connection)


# -- who may ask ------------------------------------------------------------------------------------------------------------------------

PATHS = [
    ("GET", "usage"),
    ("POST", "usage/reset"),
    ("GET", "sessions"),
    ("DELETE", "sessions/1"),
    ("GET", "journal"),
    ("PATCH", "organisation"),
    ("PATCH", "switches"),
    ("GET", "nowhere"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "said", ["", "Bearer", "Bearer wrong", "Basic {token}", "{token}", "bearer {token}", "Bearer {token}x", "Bearer \xff"]
)
async def test_nothing_without_the_token(admin, method, path, said):
    status, answer = await admin.ask(method, path, Authorization=said.format(token=admin.server.admin_token))
    assert status == 401
    assert "Authorization: Bearer" in answer["error"]
    assert admin.server.admin_token not in answer["error"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "[::1"]
)
async def test_nothing_under_a_foreign_name(admin, host):
    assert (await admin.ask("GET", "usage", Host=host))[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1:1", "[::1]:8765"])
async def test_this_machine_by_any_of_its_names(admin, host):
    assert (await admin.ask("GET", "usage", Host=host))[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:3000", "null", "", "https://127.0.0.1"])
async def test_nothing_for_pages_of_other_origins(admin, origin):
    assert (await admin.ask("GET", "usage", Origin=origin))[0] == 403


async def test_a_page_of_its_own(admin):
    assert (await admin.ask("GET", "usage", Origin=admin.server.admin_url.removesuffix("/admin/")))[0] == 200


async def test_tokens_are_random_unless_given():
    async with local_velma(Organisation((KEY,))) as one, local_velma(Organisation((KEY,))) as other:
        assert len(one.admin_token) >= 40
        assert one.admin_token != other.admin_token
        assert one.admin_token not in repr(one)
    async with local_velma(Organisation((KEY,)), admin_token="given") as server, aiohttp.ClientSession() as browser:
        assert (await Admin(browser, server).ask("GET", "usage", Authorization="Bearer given"))[0] == 200


# -- what it says -----------------------------------------------------------------------------------------------------------------------


async def test_usage_and_live_sessions(admin):
    async with streaming(admin.server), streaming(admin.server, "ai_music", OTHER):
        usage = await admin.until("usage", lambda usage: usage["used_ms"] == 192 + 4000)
        first, second = (await admin.get("sessions"))["sessions"]
    assert usage["endpoints"]["music"] == {"used_ms": 192, "sessions": 1, "live": 1, "peak": 1, "max_connections": None}
    assert usage["endpoints"]["ai_music"]["used_ms"] == 4000
    assert {name: usage[name] for name in ("keys", "monthly_hours", "credit_hours", "total_connections")} == {
        "keys": 2,
        "monthly_hours": None,
        "credit_hours": None,
        "total_connections": None,
    }
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT.*(Z|\+00:00)", first.pop("since"))
    number = first.pop("session")
    assert first == {"endpoint": "music", "key": 1, "bytes": len(FRAME), "audio_ms": 192}
    assert (second["session"], second["endpoint"], second["key"], second["audio_ms"]) == (number + 1, "ai_music", 2, 4000)


async def test_a_new_month(admin):
    await admin.change(monthly_hours=0.1, credit_hours=1)
    admin.server.organisation.use("music", 360_000)
    assert (await admin.get("usage"))["used_ms"] == 360_000
    status, usage = await admin.ask("POST", "usage/reset")
    assert (status, usage["used_ms"], usage["credit_hours"]) == (200, 0, 0.9)
    async with streaming(admin.server):
        pass


async def test_the_journal_since_a_position(admin):
    async with streaming(admin.server) as connection:
        await connection.send("")
        await the_end(connection)
    await admin.all_free()
    lines = await admin.until_noted("close")
    assert [line["event"] for line in lines] == ["peak", "connect", "first_audio", "done", "close"]
    assert [line["position"] - admin.began for line in lines] == [1, 2, 3, 4, 5]
    assert await admin.journal(lines[2]["position"]) == lines[3:]
    assert await admin.journal(lines[-1]["position"]) == []
    assert {line["detector"] for line in lines} == {WHOSE}


async def test_peaks_are_lines_where_they_grow(admin):
    async with streaming(admin.server), streaming(admin.server), streaming(admin.server, "ai_music"):
        pass
    await admin.all_free()
    async with streaming(admin.server):
        pass
    peaks = [(line["endpoint"], line["connections"]) for line in await admin.journal() if line["event"] == "peak"]
    assert peaks == [("music", 1), ("music", 2), ("ai_music", 1)]


async def test_the_file_alone_tells_money_and_limits(admin, journal_file):
    async with streaming(admin.server) as first, streaming(admin.server, key=OTHER) as second:
        await second.close()
        await first.send("")
        await the_end(first)
    lines = await admin.until_noted("close", 2)
    assert [json.loads(line) for line in journal_file.read_text().splitlines()][-len(lines) :] == lines
    by_event = {event: [line for line in lines if line["event"] == event] for event in ("connect", "close", "done", "peak")}
    assert [(line["key"], line["live"]) for line in by_event["connect"]] == [(1, 1), (2, 2)]
    numbers = [line["session"] for line in by_event["connect"]]
    assert {line["session"]: (line["bytes"], line["audio_ms"]) for line in by_event["close"]} == dict.fromkeys(numbers, (len(FRAME), 192))
    assert [line["session"] for line in by_event["done"]] == numbers[:1]
    assert max(line["connections"] for line in by_event["peak"]) == 2


async def test_keys_and_the_token_are_never_said(admin, journal_file):
    await admin.change(add_keys=["sk-brand-new"])
    async with streaming(admin.server, key="sk-brand-new"):
        said = [await admin.get(path) for path in ("usage", "sessions", "switches")]
    said += [await admin.change(revoke_keys=["sk-brand-new", "sk-unknown"]), await admin.journal(), journal_file.read_text()]
    for secret in (KEY, OTHER, "sk-brand-new", "sk-unknown", admin.server.admin_token):
        assert secret not in json.dumps(said)


@pytest.mark.parametrize("path", ["", "elsewhere", "admin/usage", "admin/nowhere", ENDPOINTS["music"].path[1:]])
async def test_every_answer_says_whose_findings_they_are(admin, path):
    async with admin.browser.get(admin.server.admin_url.removesuffix("admin/") + path) as response:
        assert response.headers["X-Detector"] == WHOSE


@pytest.mark.parametrize(("script", "whose"), [(None, WHOSE), ({}, SCRIPTED)])
async def test_upgrade_page_and_journal_say_it_too(admin, script, whose):
    await admin.switch(script=script)
    async with streaming(admin.server) as connection:
        assert connection.response.headers["X-Detector"] == whose
    async with admin.browser.get(admin.server.admin_url.removesuffix("admin/")) as page:
        assert whose in await page.text()
    assert {line["detector"] for line in await admin.journal()} == {whose}


# -- what it changes --------------------------------------------------------------------------------------------------------------------


async def test_a_revoked_key_in_mid_stream(admin):
    async with (
        streaming(admin.server) as mine,
        streaming(admin.server, "ai_music") as also_mine,
        streaming(admin.server, key=OTHER) as others,
    ):
        assert (await admin.change(revoke_keys=[KEY]))["keys"] == 1
        for connection in (mine, also_mine):
            assert await the_end(connection) == NOT_PERMITTED
        await others.send(FRAME)
        assert json.loads(await others.recv())["type"] == "frame"
        assert await refused(admin.server) == NOT_PERMITTED
        await others.send("")
        assert await the_end(others) == (None, 1000)
    refusals = [(line["session"], line["code"]) for line in await admin.journal() if line["event"] == "refused"]
    first = refusals[0][0]
    assert refusals == [(first, 4003), (first + 1, 4003), (first + 3, 4003)]


async def test_an_added_key(admin):
    assert await refused(admin.server, "sk-third") == NOT_PERMITTED
    assert (await admin.change(add_keys=["sk-third"], revoke_keys=[KEY]))["keys"] == 2
    async with streaming(admin.server, key="sk-third"):
        assert (await admin.get("sessions"))["sessions"][0]["key"] > 2


async def test_a_lower_limit_cuts_nobody(admin):
    async with streaming(admin.server) as one, streaming(admin.server) as two:
        usage = await admin.change(max_connections={"music": 1})
        assert [usage["endpoints"][name]["max_connections"] for name in ENDPOINTS] == [1, None]
        assert await refused(admin.server) == ("Too many concurrent connections.", 4029)
        for connection in (one, two):
            await connection.send("")
            assert await the_end(connection) == (None, 1000)
    await admin.all_free()
    assert (await admin.change(max_connections=None))["endpoints"]["music"]["max_connections"] is None


@pytest.mark.parametrize(("limit", "text"), [("credit_hours", "Insufficient credits."), ("monthly_hours", "Monthly usage limit reached.")])
async def test_hours_that_end_in_mid_stream(admin, limit, text):
    async with streaming(admin.server) as connection:
        assert (await admin.change(**{limit: 0}))[limit] == 0
        await connection.send(FRAME)
        assert await the_end(connection) == (text, 4029)
    assert (await admin.change(**{limit: None}))[limit] is None
    async with streaming(admin.server):
        pass


async def test_what_is_left_out_stays(admin):
    await admin.change(max_connections=2, total_connections=3, monthly_hours=4, credit_hours=5)
    usage = await admin.change(credit_hours=6)
    assert (usage["total_connections"], usage["monthly_hours"], usage["credit_hours"]) == (3, 4, 6)
    assert usage["endpoints"]["music"]["max_connections"] == 2


async def test_a_session_is_ended_by_its_number(admin):
    async with streaming(admin.server) as one, streaming(admin.server) as other:
        number = (await admin.get("sessions"))["sessions"][0]["session"]
        status, ended = await admin.ask("DELETE", f"sessions/{number}")
        assert (status, ended["session"]) == (200, number)
        assert await the_end(one) == ("Internal server error", 1011)
        await other.send("")
        assert await the_end(other) == (None, 1000)
    await admin.all_free()
    assert (await admin.ask("DELETE", f"sessions/{number}"))[0] == 404


async def test_switches_are_for_the_sessions_that_come_after(admin):
    async with streaming(admin.server) as before:
        switches = await admin.switch(source_duration=True)
        assert (switches["source_duration"], switches["threshold"]) == (True, 0.5)
        async with streaming(admin.server) as after:
            durations = []
            for connection in (before, after):
                await connection.send(FRAME[:3200])
                await connection.send("")
                durations.append((await the_rest(connection))[0][-1]["duration_ms"])
    assert durations == [192, 292]


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("organisation", b"", "Correct the body and send it again"),
        ("organisation", b"{", "Correct the body and send it again"),
        ("organisation", b"\xff", "Correct the body and send it again"),
        ("organisation", [], "object"),
        ("organisation", {"max_connections": -1}, "max_connections"),
        ("organisation", {"max_connections": "5"}, "max_connections"),
        ("organisation", {"max_connections": 1.5}, "max_connections"),
        ("organisation", {"max_connections": {"musik": 1}}, "Name endpoints among music, ai_music"),
        ("organisation", {"max_connections": {"music": "x"}}, "max_connections"),
        ("organisation", {"monthly_hours": -0.1}, "monthly_hours"),
        ("organisation", {"add_keys": "k"}, "add_keys"),
        ("organisation", {"add_keys": [""]}, "add_keys"),
        ("organisation", {"keys": ["k"]}, "keys"),
        ("switches", {"speed": 0}, "speed"),
        ("switches", {"threshold": 2}, "threshold"),
        ("switches", {"short_windows": 1}, "short_windows"),
        ("switches", {"loud": True}, "loud"),
        ("switches", {"script": {"rules": [{"pattern": "*", "verdict": "robots"}]}}, "robots"),
    ],
)
async def test_a_body_that_means_nothing(admin, path, body, reason):
    before = await admin.get("usage"), await admin.get("switches")
    status, answer = await admin.ask("PATCH", path, body)
    assert (status, answer.keys()) == (400, {"error"})
    assert reason in answer["error"]
    assert (await admin.get("usage"), await admin.get("switches")) == before


@pytest.mark.parametrize("since", ["-1", "x", "1.5", ""])
async def test_a_position_that_is_none(admin, since):
    status, answer = await admin.ask("GET", f"journal?since={since}")
    assert status == 400
    assert "since" in answer["error"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "nowhere", 404), ("PUT", "usage", 405), ("DELETE", "sessions/x", 404)])
async def test_what_is_not_there_is_json_too(admin, method, path, status):
    assert (await admin.ask(method, path))[0] == status


def test_a_peak_of_a_server_without_a_file():
    journal = Journal()
    for connections in (1, 2, 1, 2, 3):
        journal.live("music", connections)
    assert [json.loads(line)["connections"] for line in journal.since(1)] == [2, 3]
