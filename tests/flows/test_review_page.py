"""`soundcheck review serve`: who gets in, what a page shows, what is played, and that answers are in the lake."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from audible_lakes import audible_lake
from chromium import browser, executable
from connectors.audio_store import FolderAudioStore
from connectors.lake.query import connect
from connectors.lake.store import FolderStore
from connectors.lake.untold import Untold
from connectors.s3 import S3Settings, s3_client
from flows.review_page.guard import CONTENT_POLICY, Guard
from flows.review_page.playing import Sound, play
from flows.review_page.server import Listening, PageOptions, review_page
from flows.settings import fixed_settings
from judged_lakes import START, fill, result
from moderation.errors import SourceChanged
from moderation.identity import object_id
from moderation.printable import printable
from reported_lakes import HOSTILE
from tasks.changes import read_changes
from tasks.decide import STARTER, decide, read_policy
from tasks.desk import Desk
from tasks.records import Run

COMMAND = "from flows.cli import main; main()"
AI, PLAIN = "songs/ai.wav", ("songs/one.wav", "songs/two.wav", "talks/three.wav")
CHANGED = "songs/changed.wav"
BY = '<b onclick="x">'
OURS = f"key = '{AI}' OR key IN {PLAIN}"
pytestmark = pytest.mark.net
in_module = pytest.mark.asyncio(loop_scope="module")


async def read_whole(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Every answer is read, so that no connection stays open with one that nobody looks at."""
    answer = await handler(request)
    await answer.read()
    return answer


def browsing(jar: aiohttp.abc.AbstractCookieJar) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=jar, middlewares=(read_whole,))


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag, **attributes):
        return [own for name, own in self.elements if name == tag and attributes.items() <= own.items()]


class Heard(NamedTuple):
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Visit:
    """A browser without eyes at a running page."""

    server: Listening
    http: aiohttp.ClientSession
    folder: Path
    audio: Path
    ids: dict[str, str]

    async def open(self, path: str) -> Elements:
        async with self.http.get(self.server.url + path) as answer:
            assert answer.status == 200, await answer.text()
            return Elements(await answer.text())

    async def keys(self, query: str = "") -> list[str]:
        page = await self.open(f"/?{query}")
        by_id = {identity: key for key, identity in self.ids.items()}
        return [by_id[link["href"].partition("?")[0].rpartition("/")[2]] for link in page.of("a", **{"class": "object"})]

    async def form(self, key: str) -> dict[str, str]:
        [hidden] = (await self.open(f"/object/{self.ids[key]}")).of("input", type="hidden")
        return {hidden["name"]: hidden["value"]}

    async def post(self, key: str, form: dict[str, str], query: str = "", **headers: str) -> Heard:
        told = {"Origin": self.server.url} | headers
        address = f"{self.server.url}/object/{self.ids[key]}?{query}"
        async with self.http.post(address, data=form, headers=told, allow_redirects=False) as answer:
            return Heard(answer.status, answer.headers, await answer.read())

    async def play(self, key: str, asked: str | None = None, **headers: str) -> Heard:
        told = headers | ({"Range": asked} if asked else {})
        async with self.http.get(f"{self.server.url}/audio/{self.ids[key]}", headers=told) as answer:
            return Heard(answer.status, answer.headers, await answer.read())

    def answers(self) -> list[tuple[object, ...]]:
        with connect(str(self.folder / "results")) as lake:
            return lake.execute(
                "SELECT object_id, answer, reviewer, note, decision_before FROM review_answers ORDER BY answered_at"
            ).fetchall()


def settings_of(folder: Path):
    return fixed_settings(results=str(folder / "results"))


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A folder with audio and results of it: four objects that wait beside those of hostile keys, and one that is blocked."""
    folder = tmp_path_factory.mktemp("scanned")
    return folder, audible_lake(folder, [AI, *PLAIN, CHANGED, *HOSTILE], [AI])


@asynccontextmanager
async def visiting(scanned, tmp_path: Path, where: str, reviewer: str = "ada") -> AsyncIterator[Visit]:
    """A visit to a copy of the results, the audio being shared."""
    shutil.copytree(scanned[0] / "results", tmp_path / "results")
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of addresses are meant by that
    options = PageOptions(reviewer=reviewer, where=where)
    async with (
        review_page(settings_of(tmp_path), options) as server,
        browsing(jar) as http,
    ):
        async with http.get(server.entrance, allow_redirects=False) as answer:
            assert answer.status == 303
        yield Visit(server, http, tmp_path, scanned[0] / "audio", scanned[1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def visit(scanned, tmp_path_factory):
    """One for all the tests that leave no answer, by somebody whose name is no better than the keys are."""
    async with visiting(scanned, tmp_path_factory.mktemp("visit"), "true", BY) as begun:
        yield begun


@in_module
async def test_what_waits_is_filtered_looked_at_played_and_answered_and_then_no_longer_waits(scanned, tmp_path):
    one, two, _ = PLAIN
    async with visiting(scanned, tmp_path, OURS) as visit:
        assert await visit.keys("words=SONGS") == [one, two]
        page = await visit.open(f"/object/{visit.ids[one]}?words=songs")
        assert "1 of 2" in page.text
        assert "the rule points to 0:05 to 0:18." in page.text
        assert "Local results" not in page.text
        assert page.of("audio")[0]["src"] == f"/audio/{visit.ids[one]}#t=5"
        sound = await visit.play(one, "bytes=100-299")
        assert (sound.status, sound.body) == (206, (visit.audio / one).read_bytes()[100:300])
        [csrf] = page.of("input", type="hidden")
        form = {csrf["name"]: csrf["value"], "answer": "block", "note": "a  loop\r\n=1"}
        answered = await visit.post(one, form, "words=songs")
        there = urlsplit(answered.headers["Location"])
        assert (answered.status, there.path) == (303, f"/object/{visit.ids[two]}")
        assert parse_qs(there.query) == {"show": ["waiting"], "words": ["songs"], "done": [visit.ids[one]], "said": ["block"]}
        page = await visit.open(answered.headers["Location"])
        assert f"On record: block, of {one}." in page.text
        assert "1 of 1" in page.text
        last = await visit.post(two, form | {"answer": "unsure", "note": ""}, "words=songs")
        assert urlsplit(last.headers["Location"]).path == "/"
        await visit.post(one, form)  # said again, it adds nothing
        told = [(visit.ids[one], "block", "ada", "a loop =1", "review"), (visit.ids[two], "unsure", "ada", None, "review")]
        assert visit.answers() == told
        assert await visit.keys() == [*PLAIN[1:]]
        page = await visit.open("/?show=answered")
        assert [link.get("href").split("?")[0] for link in page.of("a", **{"class": "object"})] == [f"/object/{visit.ids[one]}"]
        assert "block by ada" in page.text


def test_what_an_answer_has_overturned_is_known_once(scanned, tmp_path):
    shutil.copytree(scanned[0] / "results", tmp_path / "results")
    store, at = FolderStore(tmp_path / "results"), START + timedelta(days=1)
    desk, run = Desk(store, partial(connect, store.url), "default", OURS), Run("20261121T080000Z-0a1b2c", "default", at)
    desk.read()
    identity = scanned[1][PLAIN[0]]
    file = desk.answer(run, identity, {"answer": "block", "note": ""}, "ada", at)
    [turned] = read_changes(store, partial(connect, store.url), Untold(file, "default", run.run_id, at)).listed.to_dicts()
    assert (turned["before"], turned["after"], turned["reviewer"]) == ("review", "block", "ada")
    assert (tmp_path / "results" / "v1" / file).is_file()
    assert desk.answer(run, identity, {"answer": "block", "note": ""}, "ada", at + timedelta(minutes=1)) is None


@in_module
async def test_nobody_gets_in_without_the_token_and_nothing_but_our_own_forms_writes(visit):
    form = await visit.form(PLAIN[0]) | {"answer": "allow"}
    address, paths = visit.server.url, ("/", f"/object/{visit.ids[AI]}", f"/audio/{visit.ids[AI]}", "/static/page.js", "/nowhere")
    async with browsing(aiohttp.DummyCookieJar()) as stranger:
        for path in paths:
            assert (await stranger.get(address + path)).status == 401
        assert (await stranger.post(f"{address}/object/{visit.ids[PLAIN[0]]}", data=form, headers={"Origin": address})).status == 401
        for token in ("", "x", "%ff", visit.server.token[:-1]):
            refused = await stranger.get(f"{address}/enter?token={token}")
            assert (refused.status, "Set-Cookie" in refused.headers) == (403, False)
        entered = await stranger.get(visit.server.entrance, allow_redirects=False)
        assert (entered.status, entered.headers["Location"]) == (303, "/")
        [cookie] = entered.headers.getall("Set-Cookie")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
        assert visit.server.token not in cookie
    for host in (
        "evil.test",
        f"evil.test:{urlsplit(address).port}",
        "127.0.0.1.evil.test",
        "192.0.2.1",
        "[",
        "",
        "localhost:x",
        "localhost:99999",
        "0",
    ):
        for path in (*paths, f"/enter?token={visit.server.token}"):
            assert (await visit.http.get(address + path, headers={"Host": host})).status == 421
    refused = [
        await visit.post(PLAIN[0], form, Origin="http://evil.test"),
        await visit.post(PLAIN[0], form, Origin="null"),
        await visit.post(PLAIN[0], form, Origin="http://127.0.0.1:1"),
        await visit.post(PLAIN[0], form | {"csrf": "wrong"}),
        await visit.post(PLAIN[0], {"answer": "allow"}),
        await visit.http.post(f"{address}/object/{visit.ids[PLAIN[0]]}", data=form),
        await visit.http.post(f"{address}/object/{visit.ids[PLAIN[0]]}", json=form, headers={"Origin": address}),
    ]
    assert [answer.status for answer in refused] == [403] * len(refused)
    async with browsing(aiohttp.CookieJar(unsafe=True)) as other:
        await other.get(visit.server.entrance)
        theirs = await other.post(f"{address}/object/{visit.ids[PLAIN[0]]}", data=form, headers={"Origin": address})
        assert theirs.status == 403
    assert visit.answers() == []


@pytest.mark.parametrize(
    ("remote", "host", "status"),
    [(None, "10.0.0.7:80", 421), ("0.0.0.0", "10.0.0.7:80", 403), ("box.test", "BOX.test:9", 403), ("box.test", "evil.test", 421)],
)
@in_module
async def test_others_may_call_a_server_that_is_theirs_too_but_by_no_name_of_their_own(remote, host, status):
    request = make_mocked_request("GET", "/enter?token=no", headers={"Host": host})
    guard = Guard("token", remote)
    assert (await guard.middleware()(request, guard.enter)).status == status


@in_module
async def test_every_answer_tells_the_browser_what_it_may_do(visit):
    for path in ("/", f"/object/{visit.ids[AI]}", f"/audio/{visit.ids[AI]}", "/static/page.css", "/nowhere", "/enter"):
        answer = await visit.http.get(visit.server.url + path)
        assert answer.headers["Content-Security-Policy"] == CONTENT_POLICY
        assert (answer.headers["X-Content-Type-Options"], answer.headers["Referrer-Policy"]) == ("nosniff", "same-origin")
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert "unsafe" not in CONTENT_POLICY


@in_module
async def test_audio_comes_in_the_ranges_that_are_asked_for(visit):
    body = (visit.audio / AI).read_bytes()
    size = len(body)
    cases = {
        "bytes=0-": body,
        "bytes=-5": body[-5:],
        f"bytes={size - 3}-{size + 9}": body[-3:],
        "bytes=1100000-1200000": body[1_100_000:1_200_001],
    }
    for asked, part in cases.items():
        answer = await visit.play(AI, asked)
        assert (answer.status, answer.body == part) == (206, True)
        start = size - len(part) if asked.startswith("bytes=-") else int(asked[6:].partition("-")[0])
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/{size}"
    whole = await visit.play(AI)
    assert (whole.status, whole.body == body, whole.headers["Content-Type"]) == (200, True, "audio/wav")
    assert whole.headers["Accept-Ranges"] == "bytes"
    for ignored in ("bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=x-"):
        assert (await visit.play(AI, ignored)).status == 200
    assert (await visit.play(AI, "bytes=0-1", **{"If-Range": '"another"'})).status == 200
    assert (await visit.play(AI, "bytes=0-1", **{"If-Range": whole.headers["ETag"]})).status == 206
    beyond = await visit.play(AI, f"bytes={size}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")


@in_module
async def test_what_was_overwritten_or_is_not_in_the_queue_does_not_play(scanned, tmp_path):
    async with visiting(scanned, tmp_path, f"key = '{CHANGED}'") as visit:
        file = visit.audio / CHANGED
        assert (await visit.play(CHANGED, "bytes=0-9")).status == 206
        file.write_bytes(file.read_bytes() + b"more")
        for asked in ("bytes=0-9", None):
            refused = await visit.play(CHANGED, asked)
            assert (refused.status, b"since it was" in refused.body) == (409, True)
        page = await visit.open(f"/object/{visit.ids[CHANGED]}")
        assert page.of("audio") == []
        assert "It cannot be played: it was overwritten since it was scanned" in page.text
        file.unlink()
        assert (await visit.play(CHANGED)).status == 410
        assert (await visit.play(AI)).status == 404


@in_module
async def test_what_is_overwritten_in_mid_play_breaks_off(scanned, caplog):
    class Overwritten(FolderAudioStore):
        async def head(self, item, size, offset=0):
            if offset:
                raise SourceChanged("it was changed")
            return await super().head(item, size)

    folder = scanned[0] / "audio"
    audio = Overwritten(folder)
    sound = Sound(await audio.find(str(folder.resolve()), AI), "audio/wav")
    application = web.Application()
    application.router.add_get("/", partial(play, audio, sound))
    async with TestClient(TestServer(application)) as client:
        with pytest.raises(aiohttp.ClientError):
            await (await client.get("/")).read()
    assert caplog.records == []


@in_module
async def test_only_objects_of_the_queue_have_an_address(visit):
    paths = ("/audio/..%2f..%2fetc%2fpasswd", f"/audio/{AI}", "/static/server.py", "/static/..%2fserver.py")
    for path in (*paths, f"/object/{'0' * 32}", f"/audio/{'0' * 32}"):
        assert (await visit.http.get(visit.server.url + path)).status == 404


@in_module
async def test_labels_are_shown_and_results_of_a_local_server_say_so(visit):
    text = (await visit.open(f"/object/{visit.ids[AI]}?show=blocked")).text
    assert "Local results" in text
    assert "ai-vocal-music" in text


@in_module
async def test_what_is_no_answer_is_refused(visit):
    form = await visit.form(PLAIN[0])
    for wrong in ({}, {"answer": "maybe"}, {"answer": "allow", "note": "x" * 3000}):
        assert (await visit.post(PLAIN[0], form | wrong)).status == 400
    for charset in ("nonsense", "utf-16"):
        kind = {"Content-Type": f"application/x-www-form-urlencoded; charset={charset}"}
        assert (await visit.post(PLAIN[0], form | {"answer": "allow"}, **kind)).status == 403
    assert visit.answers() == []


@in_module
async def test_hostile_keys_are_text(visit):
    odd = {"words": '"><script>', "rule": "'onload=x", "done": visit.ids[HOSTILE[0]], "said": "allow", "page": "9", "show": "'>"}
    pages = [await visit.open("/"), await visit.open(f"/?{urlencode(odd)}")]
    pages += [await visit.open(f"/object/{visit.ids[key]}?{urlencode(odd)}") for key in HOSTILE[:3]]
    for key in HOSTILE[:5]:
        assert (await visit.play(key, "bytes=0-3")).body == b"RIFF"
    assert all(printable(key) in pages[0].text for key in HOSTILE)
    assert all(f"answered by {BY}" in page.text for page in pages)
    for page in pages:
        names = {name for name, _ in page.elements}
        assert names.isdisjoint({"img", "b", "iframe", "object", "embed", "base", "style", "i"})
        assert [each["src"] for each in page.of("script")] == ["/static/page.js"]
        assert not any(name.startswith("on") or name == "style" for _, attributes in page.elements for name in attributes)
        links = [value for _, attributes in page.elements for name, value in attributes.items() if name in {"href", "src", "action"}]
        assert all(link.startswith(("/object/", "/?", "/static/", "/audio/")) or link in {"/", "data:,"} for link in links)
        assert not any("\u202a" <= letter <= "\u202e" for letter in page.text)


@in_module
async def test_as_a_process_it_says_where_it_listens_and_ends_when_it_is_told_to(scanned):
    folder, ids = scanned
    arguments = ["review", "serve", "--results", str(folder / "results"), "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        said = json.loads(await process.stdout.readline())
        assert said["pid"] == process.pid
        async with (
            browsing(aiohttp.CookieJar(unsafe=True)) as http,
            http.get(said["url"]) as answer,
        ):
            assert ids[PLAIN[0]] in await answer.text()
    finally:
        process.send_signal(signal.SIGTERM)
        printed, complained = await process.communicate()
    assert (process.returncode, printed, complained.count(b"\n")) == (0, b"", 1), complained


@pytest.mark.torture
@in_module
async def test_in_s3_the_version_that_was_scanned_is_played_and_no_other(aws, tmp_path, make_wav):
    body = make_wav(40.0)
    aws("songs/one.wav", body)
    aws("page.wav", b"<!doctype html><script>alert(1)</script>")
    client = s3_client(S3Settings())
    rows = []
    for key in ("songs/one.wav", "page.wav"):
        etag = client.head_object(Bucket="catalogue", Key=key)["ETag"].strip('"')
        place = {"bucket": "catalogue", "etag": etag, "object_id": object_id("catalogue", key, etag)}
        rows.append(result(key, primary_label="neither", **place))
    store = FolderStore(tmp_path / "results")
    fill(store, *rows)
    decide(store, partial(connect, store.url), Run(rows[0]["run_id"], "default", START), read_policy(STARTER), START)
    ids = {row["key"]: row["object_id"] for row in rows}
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        review_page(settings_of(tmp_path), PageOptions()) as server,
        browsing(jar) as http,
    ):
        await http.get(server.entrance)
        visit = Visit(server, http, tmp_path, tmp_path, ids)
        for asked in (range(10), range(1_048_570, 1_200_000)):
            heard = await visit.play("songs/one.wav", f"bytes={asked.start}-{asked.stop - 1}")
            assert (heard.status, heard.body == body[asked.start : asked.stop]) == (206, True)
        assert (await visit.play("page.wav")).status == 415
        aws("songs/one.wav", make_wav(41.0))
        assert (await visit.play("songs/one.wav", "bytes=0-9")).status == 409
        client.delete_object(Bucket="catalogue", Key="songs/one.wav")
        assert (await visit.play("songs/one.wav", "bytes=0-9")).status == 410
        assert "It cannot be played" in (await visit.open(f"/object/{ids['songs/one.wav']}")).text
    client.close()


@pytest.mark.torture
async def test_what_an_answer_has_overturned_is_an_event_before_the_server_has_ended(scanned, tmp_path):
    told = []

    async def hear(request):
        told.append(await request.json())
        return web.Response()

    shutil.copytree(scanned[0] / "results", tmp_path / "results")
    receiver, jar = web.Application(), aiohttp.CookieJar(unsafe=True)
    receiver.router.add_post("/", hear)
    async with TestServer(receiver) as at:
        settings = fixed_settings(results=str(tmp_path / "results"), notify_url=str(at.make_url("/")))
        async with (
            review_page(settings, PageOptions(reviewer="ada")) as server,
            browsing(jar) as http,
        ):
            await http.get(server.entrance)
            visit = Visit(server, http, tmp_path, tmp_path, scanned[1])
            form = await visit.form(PLAIN[0])
            for answer in ("unsure", "block", "block"):
                assert (await visit.post(PLAIN[0], form | {"answer": answer})).status == 303
    [event] = [each for each in told if each["policy"] is None]  # the lake's own decisions were told by nobody before
    [turned] = event["decisions"]
    assert (turned["object_id"], turned["before"], turned["after"], turned["reviewer"]) == (scanned[1][PLAIN[0]], "review", "block", "ada")


@pytest.mark.browser
@pytest.mark.torture
@pytest.mark.skipif(executable() is None, reason="there is no Chromium on this machine")
@in_module
async def test_in_a_browser_filter_play_decide_by_keyboard_and_reload(scanned, tmp_path):
    where = f"key <> '{CHANGED}' AND decision <> 'block' OR reviewer IS NOT NULL"
    async with visiting(scanned, tmp_path, where) as visit, browser(tmp_path) as page:
        server, ids = visit.server, visit.ids
        await page.open(server.entrance)
        assert await page.ask("location.pathname + location.search") == "/"
        await page.ask("document.querySelector('input[type=search]').focus()")
        for letter in "songs":
            await page.press(letter)
        await _going(page, page.press("Enter"))
        assert await page.ask("document.querySelectorAll('a.object').length") == 2
        await page.press("j")
        await page.press("j")
        await page.press("k")
        await _going(page, page.press("Enter"))
        assert await page.ask("location.pathname") == f"/object/{ids[PLAIN[0]]}"
        await page.press(" ")
        await _until(page, "!document.querySelector('audio').paused && document.querySelector('audio').currentTime > 5.2")
        await page.press(" ")
        assert await page.ask("document.querySelector('audio').paused")
        await _going(page, page.press("j"))
        assert await page.ask("location.pathname") == f"/object/{ids[PLAIN[1]]}"
        await _going(page, page.press("b"))
        assert await page.ask("location.pathname") == "/"
        assert visit.answers() == [(ids[PLAIN[1]], "block", "ada", None, "review")]
        assert "On record: block" in await page.ask("document.querySelector('[role=status]').textContent")
        await page.open(f"{server.url}/?show=answered")
        assert await page.ask("Array.from(document.querySelectorAll('a.object'), (each) => each.textContent)") == [PLAIN[1]]
        await page.open(f"{server.url}/?show=all")
        assert await page.ask("document.querySelectorAll('a.object').length") == len(ids) - 2
        for key in HOSTILE:
            await page.open(f"{server.url}/object/{ids[key]}")
            assert await page.ask("document.querySelector('h1 bdi').textContent") == printable(key)
        assert (page.dialogs, page.complaints) == ([], [])
        assert all(request.startswith((server.url, "data:")) for request in page.requests)


async def _going(page, pressing):
    """Press what leads to another page, and wait for that."""
    page._loaded.clear()
    await pressing
    async with asyncio.timeout(60):
        await page._loaded.wait()


async def _until(page, condition):
    async with asyncio.timeout(60):
        while not await page.ask(condition):
            await asyncio.sleep(0.05)
