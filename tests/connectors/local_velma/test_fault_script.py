"""Which session gets which faults: queued, standing, dealt by chance; and the same over the admin API."""

import json
from collections import Counter

import aiohttp
import pytest

from connectors.local_velma.fault_script import FaultScript, Scene, chosen
from connectors.local_velma.faults import specs_of
from connectors.local_velma.organisation import Organisation
from connectors.local_velma.server import local_velma
from moderation.errors import ConfigurationError


def taken(script: FaultScript, *endpoints: str) -> list[str]:
    return [specs_of(script.take(endpoint, number)) for number, endpoint in enumerate(endpoints, 1)]


def test_without_a_script_there_are_no_faults():
    assert taken(FaultScript(), "music", "ai_music") == ["", ""]


def test_what_is_queued_goes_to_the_next_sessions_and_what_stands_to_all_others():
    script = FaultScript(Scene(next=("abrupt", "", "two_done"), standing={"music": "silent", "*": "text_variant"}))
    script.queue("after_done")
    assert taken(script, *["ai_music"] * 5, "music") == ["abrupt", "", "two_done", "after_done", "text_variant", "silent"]


def test_another_script_takes_the_place_of_the_one_before():
    script = FaultScript(Scene(next=("abrupt",), standing={"*": "silent"}))
    script.play(Scene(next=("two_done",)))
    assert taken(script, "music", "music") == ["two_done", ""]


def test_what_is_left_can_be_read():
    scene = Scene(next=("abrupt", "silent"), standing={"*": "text_variant"}, mix={"two_done": 0.5}, seed=3)
    script = FaultScript(scene)
    assert script.scene == scene
    script.take("music", 1)
    assert script.scene.next == ("silent",)


def test_what_stands_and_what_chance_deals_come_together():
    assert taken(FaultScript(Scene(standing={"*": "silent"}, mix={"two_done": 1.0})), "music") == ["silent+two_done"]


def test_chance_is_a_function_of_seed_and_session():
    mix = {"abrupt": 0.3, "silent": 0.2}
    dealt = [chosen(mix, 7, session) for session in range(1, 2001)]
    assert dealt == [chosen(mix, 7, session) for session in range(1, 2001)]
    assert dealt != [chosen(mix, 8, session) for session in range(1, 2001)]
    counts = Counter(dealt)
    assert counts.keys() == {"abrupt", "silent", ""}
    assert counts["abrupt"] == pytest.approx(600, abs=80)
    assert counts["silent"] == pytest.approx(400, abs=80)


def test_the_same_seed_deals_the_same_for_ever():
    """Written down: a failure that a seed has found must be found again by another version."""
    assert [number for number in range(1, 40) if chosen({"abrupt": 0.2}, 1, number)] == [7, 9, 16, 30, 31, 35, 36]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"next": ["nothing"]}, "'nothing' is no fault"),
        ({"standing": {"music": "close"}}, "'close' is not in the form"),
        ({"standing": {"voice": "dup"}}, r"'voice' is no endpoint: known are music, ai_music, \*"),
        ({"mix": {"dup=1": 0.5}}, "'dup=1' is not in the form"),
        ({"mix": {"dup": 0.6, "drop": 0.5}}, "probabilities"),
        ({"mix": {"dup": -0.1}}, "probabilities"),
        ({"mix": {"dup": float("nan")}}, "probabilities"),
        ({"mix": {"dup": "often"}}, "no script of faults"),
        ({"nxt": []}, "no script of faults"),
        ([], "no script of faults"),
    ],
)
def test_scripts_that_are_none(written, said):
    with pytest.raises(ConfigurationError, match=said):
        Scene.of(written)


def test_a_script_that_cannot_be_played_changes_nothing():
    script = FaultScript(Scene(next=("abrupt",)))
    with pytest.raises(ConfigurationError):
        script.queue("silent", "nothing")
    assert script.scene == Scene(next=("abrupt",))


@pytest.mark.net
async def test_the_script_over_the_admin_api():
    async with local_velma(Organisation(frozenset({"k"})), detector="stub") as server, aiohttp.ClientSession() as browser:

        async def ask(method: str, body: object = None, token: str = server.admin_token) -> tuple[int, dict[str, object]]:
            headers = {"Authorization": f"Bearer {token}"}
            async with browser.request(method, f"{server.admin_url}faults", data=body and json.dumps(body), headers=headers) as response:
                return response.status, json.loads(await response.read())

        nothing = {"next": [], "standing": {}, "mix": {}, "seed": 0}
        script = {"next": ["close=4003", ""], "standing": {"*": "buffer=20"}, "mix": {"abrupt=4029": 0.25}, "seed": 5}
        assert await ask("GET") == (200, nothing)
        assert await ask("PUT", script) == (200, script)
        assert specs_of(server.faults.take("music", 1)) == "close=4003@upgrade"
        assert await ask("GET") == (200, script | {"next": [""]})
        status, refused = await ask("PUT", {"next": ["nothing"]})
        assert status == 400
        assert "'nothing' is no fault: known are" in str(refused["error"])
        assert (await ask("PUT", {"next": 5}))[0] == 400
        assert (await ask("PUT", {"endpoint": "music"}))[0] == 400
        assert (await ask("GET", token="wrong"))[0] == 401
        assert (await ask("GET"))[1] == script | {"next": [""]}
        assert await ask("DELETE") == (200, nothing)
        assert server.faults.take("music", 2) == ()
