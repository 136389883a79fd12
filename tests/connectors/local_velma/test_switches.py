"""The switches of the local server: each one changes what it says, and nothing else does; scripted verdicts and who gets them."""

import json

import msgspec
import numpy as np
import pytest

from connectors.local_velma.switches import HEAD_BYTES, NO_SWITCHES, Rule, Script, Switches, Verdict, digest_of
from moderation.endpoints import ENDPOINTS
from velma_admin import analysed

pytestmark = pytest.mark.net

SECOND = 32_000
"""Bytes of a second of the audio here."""
VERDICTS = [verdict.value for verdict in Verdict]


def noise(seconds: float, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).normal(0, 3000, int(seconds * 16000)).astype("<i2").tobytes()


# -- what the pages leave open ----------------------------------------------------------------------------------------------------------


async def test_a_short_last_window(admin):
    (*windows, _), _ = await analysed(admin.server, noise(5), "ai_music")
    assert [message["window"]["end_time_ms"] for message in windows] == [4000]
    await admin.switch(short_windows=True)
    (*windows, done), _ = await analysed(admin.server, noise(5), "ai_music")
    assert [message["window"]["end_time_ms"] for message in windows] == [4000, 5000]
    assert (done["window_count"], done["duration_ms"]) == (2, 5000)


async def test_the_duration_of_the_source(admin):
    for on, duration in ((False, 960), (True, 1000)):
        await admin.switch(source_duration=on)
        (*_, done), _ = await analysed(admin.server, noise(1))
        assert (done["duration_ms"], done["frame_count"]) == (duration, 5)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_rate_and_channels_with_a_container(admin, endpoint):
    query = {"audio_format": "wav", "sample_rate": "nonsense", "num_channels": "1"}
    wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\0\0\0\0" + noise(5)
    ((error,), code) = await analysed(admin.server, b"", endpoint, **query)
    assert (error["error"], code) == ("sample_rate and num_channels must not be specified for audio_format='wav'", 1003)
    await admin.switch(ignore_container_rate=True)
    (*_, done), code = await analysed(admin.server, wav, endpoint, **query)
    assert (done["type"], code) == ("done", 1000)
    ((error,), code) = await analysed(admin.server, b"", endpoint, audio_format="s16le")
    assert code == 1003


SHARES = {"vocal_percentage", "instrumental_percentage", "silence_percentage", "vocal_ai_confidence"}


async def test_windows_of_the_newer_shape(admin):
    await admin.switch(newer_windows=True, short_windows=True)
    # the stub hears 4.8 s of music, then 4.8 s of speech: voices only in the second window, instruments only in the first two
    (*windows, done), _ = await analysed(admin.server, noise(9.6), "ai_music")
    first, second, third = (message["window"] for message in windows)
    for window in (first, second, third):
        assert window.keys() - {"instrumental_ai_probability"} == SHARES | {"start_time_ms", "end_time_ms", "vocal_ai_probability"}
    assert first["vocal_ai_probability"] is None
    assert 0 <= second["vocal_ai_probability"] < 0.5
    assert 0 <= first["instrumental_ai_probability"] < 0.5
    assert third.get("instrumental_ai_probability") is None
    assert done.keys() == {"type", *ENDPOINTS["ai_music"].done_type.__struct_fields__}
    assert done["primary_verdict"] == "not-ai-music"


async def test_the_shapes_agree_about_the_clip(admin):
    older = await analysed(admin.server, noise(9.6), "ai_music")
    await admin.switch(newer_windows=True)
    newer = await analysed(admin.server, noise(9.6), "ai_music")
    assert (older[0][-1], older[1]) == (newer[0][-1], newer[1])
    assert {"vocal_ai_percentage", "vocal_ai_confidence"} <= older[0][0]["window"].keys()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("seconds", [3.9, 4.0])
async def test_objects_up_to_a_length(admin, endpoint, seconds):
    await admin.switch(max_session_hours=4 / 3600)
    (*_, done), code = await analysed(admin.server, noise(seconds), endpoint)
    assert (done["type"], code) == ("done", 1000)


@pytest.mark.parametrize(("endpoint", "items"), [("music", 26), ("ai_music", 1)])
async def test_longer_objects_cannot_be_processed(admin, endpoint, items):
    await admin.switch(max_session_hours=5 / 3600)
    (*said, error), code = await analysed(admin.server, noise(5.01), endpoint)
    assert (len(said), code) == (items, 4002)
    assert error["error"] == "The audio could not be processed. It may be corrupted or in an unsupported format."


async def test_a_threshold(admin):
    (*_, done), _ = await analysed(admin.server, noise(2))
    assert (done["music_pct"], done["primary_label"]) == (100.0, "music")
    await admin.switch(threshold=0.95)  # the stub is sure by 0.9
    (*frames, done), _ = await analysed(admin.server, noise(2))
    assert (done["music_pct"], done["primary_label"]) == (0.0, "neither")
    assert frames[0]["frame"]["music_prob"] == 0.9


async def test_no_faster_than_told(admin):
    """Not how long it takes, but that it takes: ten seconds of audio wait in the server long after they were all sent."""
    await admin.switch(speed=5)
    (*frames, done), code = await analysed(admin.server, noise(2))
    opened, closed = (line["at"] for line in await admin.until_noted("close") if line["event"] in {"first_audio", "close"})
    assert (len(frames), done["duration_ms"], code) == (10, 1920, 1000)
    assert seconds_between(opened, closed) >= (1.92 - 0.192) / 5


def seconds_between(earlier: str, later: str) -> float:
    return float((np.datetime64(later[:26]) - np.datetime64(earlier[:26])) / np.timedelta64(1, "s"))


def test_nothing_is_on_by_default():
    assert msgspec.to_builtins(NO_SWITCHES) == {
        "short_windows": False,
        "newer_windows": False,
        "source_duration": False,
        "ignore_container_rate": False,
        "max_session_hours": None,
        "speed": None,
        "threshold": 0.5,
        "script": None,
    }


@pytest.mark.parametrize(
    "changes",
    [{"speed": 0.05}, {"speed": -1}, {"threshold": -0.1}, {"threshold": 1.1}, {"max_session_hours": 0}, {"short_windows": "yes"}, {"x": 1}],
)
def test_switches_that_mean_nothing(changes):
    with pytest.raises(msgspec.ValidationError):
        NO_SWITCHES.changed(changes)


# -- scripted verdicts ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("audio", [noise(9.6), bytes(10 * SECOND)], ids=["noise", "silence"])
@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("newer", [False, True])
async def test_a_verdict_that_was_asked_for(admin, verdict, audio, newer):
    await admin.switch(script={}, newer_windows=newer)
    (*windows, done), code = await analysed(admin.server, audio, "ai_music", scripted_verdict=verdict)
    assert (done["primary_verdict"], done["window_count"], code) == (verdict, 2, 1000)
    accused = {name: [message["window"].get(name) or 0 for message in windows] for name in ("vocal_ai_percentage", "vocal_ai_probability")}
    vocal, instrumental = verdict == "ai-vocal-music", verdict == "ai-instrumental"
    assert all((value >= 0.5) == vocal for value in accused["vocal_ai_probability" if newer else "vocal_ai_percentage"])
    assert (done["vocal_ai_percentage"] == 100.0, done["vocal_ai_confidence"] >= 0.5) == (vocal, vocal)
    assert (done["instrumental_ai_percentage"] >= 50.0, done["instrumental_ai_confidence"] >= 0.5) == (instrumental, instrumental)
    assert done["vocal_percentage"] >= 50.0 if vocal else done["instrumental_percentage"] >= 50.0 or not instrumental


async def test_no_verdict_on_less_than_a_window(admin):
    await admin.switch(script={})
    (done,), _ = await analysed(admin.server, noise(3), "ai_music", scripted_verdict="ai-instrumental")
    assert (done["primary_verdict"], done["instrumental_ai_percentage"]) == ("not-ai-music", 0.0)


async def test_without_a_script_nobody_may_ask(admin):
    said = await analysed(admin.server, noise(5), "ai_music", scripted_verdict="ai-vocal-music")
    assert said[0][-1]["primary_verdict"] == "not-ai-music"
    assert said == await analysed(admin.server, noise(5), "ai_music", scripted_verdict="robots")
    assert said == await analysed(admin.server, noise(5), "ai_music")


async def test_a_verdict_that_is_none(admin):
    await admin.switch(script={})
    ((error,), code) = await analysed(admin.server, noise(5), "ai_music", scripted_verdict="robots")
    assert (error["error"], code) == (f"Invalid scripted_verdict='robots'. Valid values: {VERDICTS}", 1003)


async def test_music_is_not_scripted(admin):
    plain = await analysed(admin.server, noise(5))
    await admin.switch(script={"rules": [{"pattern": "*", "verdict": "ai-vocal-music"}], "digests": {"a": digest_of(noise(5))}})
    assert await analysed(admin.server, noise(5)) == plain
    assert await analysed(admin.server, noise(5), scripted_verdict="ai-vocal-music") == plain


@pytest.mark.parametrize("chunk", [1 << 20, 4095, 1000])
async def test_verdicts_by_name(admin, chunk):
    """Objects are recognised by their first bytes, in whatever pieces those come."""
    objects = {"ai/song.wav": noise(5, 1), "ai/band.wav": noise(5, 2), "people/song.wav": noise(5, 3), "nobody": noise(5, 4)}
    rules = [("ai/band*", "ai-instrumental"), ("ai/*", "ai-vocal-music"), ("*/song.wav", "not-ai-music")]
    script = {
        "rules": [{"pattern": pattern, "verdict": verdict} for pattern, verdict in rules],
        "digests": {name: digest_of(body) for name, body in objects.items()},
    }
    await admin.switch(script=script)
    verdicts = {}
    for name, body in objects.items():
        messages, code = await analysed(admin.server, body, "ai_music", chunk=chunk)
        verdicts[name] = (messages[-1]["primary_verdict"], code)
    assert verdicts == {
        "ai/song.wav": ("ai-vocal-music", 1000),
        "ai/band.wav": ("ai-instrumental", 1000),
        "people/song.wav": ("not-ai-music", 1000),
        "nobody": ("not-ai-music", 1000),
    }


async def test_the_query_goes_before_the_rules(admin):
    body = noise(5)
    await admin.switch(script={"rules": [{"pattern": "*", "verdict": "ai-vocal-music"}], "digests": {"a": digest_of(body)}})
    assert (await analysed(admin.server, body, "ai_music"))[0][-1]["primary_verdict"] == "ai-vocal-music"
    asked = await analysed(admin.server, body, "ai_music", scripted_verdict="ai-instrumental")
    assert asked[0][-1]["primary_verdict"] == "ai-instrumental"


async def test_a_short_object_is_known_by_all_of_it(admin):
    query = {"audio_format": "u8", "sample_rate": "8000", "num_channels": "1"}
    short, longer = bytes(2000), bytes(2001)
    await admin.switch(
        short_windows=True, script={"rules": [{"pattern": "a", "verdict": "ai-vocal-music"}], "digests": {"a": digest_of(short)}}
    )
    assert (await analysed(admin.server, short, "ai_music", **query))[0][-1]["primary_verdict"] == "ai-vocal-music"
    assert (await analysed(admin.server, longer, "ai_music", **query))[0][-1]["primary_verdict"] == "not-ai-music"


async def test_a_script_of_thousands_of_objects(admin):
    digests = {f"object-{number}": digest_of(str(number).encode()) for number in range(5000)} | {"mine": digest_of(noise(5))}
    service_script = Script((Rule("*", Verdict.AI_INSTRUMENTAL),), digests)
    await admin.switch(script=msgspec.to_builtins(service_script))
    assert (await analysed(admin.server, noise(5), "ai_music"))[0][-1]["primary_verdict"] == "ai-instrumental"


def test_the_first_rule_that_matches():
    script = Script(
        (Rule("*.mp3", Verdict.AI_VOCAL_MUSIC), Rule("a*", Verdict.AI_INSTRUMENTAL)), {"a.mp3": "1", "a.wav": "2", "b.wav": "3"}
    )
    assert script.verdicts() == {"1": "ai-vocal-music", "2": "ai-instrumental"}


def test_digests_are_of_the_first_bytes():
    assert digest_of(bytes(HEAD_BYTES)) == digest_of(bytes(HEAD_BYTES) + b"more")
    assert digest_of(b"a") != digest_of(b"ab")


def test_switches_survive_their_own_json():
    switches = Switches(short_windows=True, speed=2.5, script=Script((Rule("*", Verdict.NOT_AI_MUSIC),), {"a": "b"}))
    assert NO_SWITCHES.changed(json.loads(msgspec.json.encode(switches))) == switches
