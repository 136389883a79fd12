"""The report of a run: its figures, its list of what is flagged, and a page in which keys stay text."""

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser

import pytest

from chromium import browser, executable
from connectors.lake.erasing import Target, forget_pages
from connectors.lake.packages import run_file, write_rows
from connectors.lake.query import connect
from connectors.lake.receipts import Scope
from connectors.lake.store import FolderStore
from flows.cli import run as command
from flows.report_artifact import cell, markdown_of
from flows.reporting import Wanted, WrongReport, report_runs
from flows.settings import fixed_settings
from judged_lakes import BUCKET, RUN, START, identity_of
from moderation.hosts import is_local
from moderation.printable import printable
from reported_lakes import HOSTILE, reported_lake, run_row
from tasks.report_figures import NoSuchRun, find_run, read_figures, runs_between
from tasks.review_sheets import read_sheet
from tasks.verify import verify

NOW = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
PLAIN = tuple(f"songs/{number:02d}.mp3" for number in range(8))
VOID = frozenset({"meta", "link", "br", "img", "input", "path", "rect", "circle"})


class Elements(HTMLParser):
    """What a page consists of, as a parser sees it: elements with their attributes, and the text inside."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.text = ""
        self.unclosed: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.inside.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if self.inside.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data):
        if not {"style", "script"} & set(self.inside):
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A lake whose keys are hostile, with the report that was made of it."""
    folder = tmp_path_factory.mktemp("hostile")
    store = FolderStore(folder / "results")
    reported_lake(store, [*HOSTILE, *PLAIN], host="ws://127.0.0.1:8000")
    done = report_runs(fixed_settings(results=str(folder / "results")), Wanted(), lambda: NOW)
    return store, done


def page_of(store: FolderStore) -> str:
    return store.get(run_file(RUN, "report.html")).decode()


def test_hostile_keys_are_text_in_the_page_and_nothing_else(hostile):
    store, _ = hostile
    elements = Elements(page_of(store))
    assert elements.unclosed == []
    assert elements.inside == []
    for key in HOSTILE:
        assert printable(key) in elements.text
    assert not any("\u202a" <= letter <= "\u202e" for letter in page_of(store))
    assert len(elements.of("script")) == 1
    assert len(elements.of("style")) == 1
    assert elements.of("img") == []
    assert {name for name, _ in elements.elements}.isdisjoint({"iframe", "object", "embed", "form", "base", "i", "em", "b"})
    assert not any(name.startswith("on") or name == "style" for _, attributes in elements.elements for name in attributes)


def test_the_page_refers_to_nothing_but_itself_and_the_files_beside_it(hostile):
    store, _ = hostile
    elements = Elements(page_of(store))
    references = {
        value for _, attributes in elements.elements for name, value in attributes.items() if name in {"href", "src", "xlink:href"}
    }
    assert {each for each in references if not each.startswith("#")} == {"data:,", "flagged.csv", "flagged.parquet"}
    [policy] = [each["content"] for each in elements.of("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_whoever_does_not_see_is_told_the_same(hostile):
    store, done = hostile
    elements = Elements(page_of(store))
    drawings = [each for each in elements.of("svg") if each.get("role") == "img"]
    assert len(drawings) == len(done.report.entries) + 2
    assert all(each.get("aria-labelledby") for each in drawings)
    assert all(each.get("aria-hidden") == "true" for each in elements.of("svg") if each.get("role") != "img")
    ids = [attributes["id"] for _, attributes in elements.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    referred = {word for _, attributes in elements.elements for word in (attributes.get("aria-labelledby") or "").split()}
    assert referred <= set(ids)
    assert len(elements.of("caption")) == len(elements.of("table"))
    assert all("scope" in each for each in elements.of("th"))
    assert {"header", "nav", "main", "footer", "h1"} <= {name for name, _ in elements.elements}
    assert "0:20 of audio; probabilities: music up to 97%, speech up to 95%, AI vocals up to 90%; segments: " in elements.text
    assert "the rule points to 0:04 to 0:12." in elements.text


def test_local_results_say_so_wherever_they_show(hostile):
    _, done = hostile
    assert done.as_json()["local_results"] is True
    assert all(entry["local_results"] for entry in done.as_json()["review_list"])
    assert Elements(page_of(hostile[0])).text.count("local results") >= len(done.report.entries)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("ws://127.0.0.1:8765", True),
        ("ws://localhost", True),
        ("http://[::1]:1/x", True),
        ("wss://platform.modulate.ai", False),
        ("wss://localhost.example", False),
        ("wss://127.0.0.1.example", False),
    ],
)
def test_results_are_local_by_the_host_that_made_them(host, local):
    assert is_local(host) is local


def test_the_list_has_what_waits_for_a_person_before_what_is_blocked_each_by_priority(hostile):
    _, done = hostile
    decisions = [entry.facts["decision"] for entry in done.report.entries]
    assert decisions == ["review"] * 14 + ["block"] * 4
    assert [entry.rank for entry in done.report.entries] == [*range(1, 19)]
    blocked = done.report.entries[-1]
    assert (blocked.timeline.evidence, blocked.labels["ai_music"]) == ((4000, 12_000), "ai-vocal-music")


def test_the_figures_are_those_of_the_run(hostile):
    store, done = hostile
    figures = json.loads(store.get(run_file(RUN, "report.json")))
    assert figures == {name: value for name, value in done.as_json().items() if name not in {"page", "exit_code"}}
    assert [(row["endpoint"], row["hours"] * 3600) for row in figures["spend"]] == [
        ("ai_music", pytest.approx(80.0)),
        ("music", pytest.approx(360.0)),
    ]
    assert figures["spend"][1]["possible_hours"] * 3600 == pytest.approx(40.0)
    assert [(row["outcome"], row["reason"], row["objects"]) for row in figures["outcomes"]] == [("done", None, 4), ("done", None, 18)]
    assert {(row["label"], row["objects"], row["share"]) for row in figures["labels"]} == {("ai-vocal-music", 4, 1.0), ("music", 18, 1.0)}
    assert [(row["decision"], row["objects"]) for row in figures["decisions"]] == [("review", 14), ("block", 4)]
    assert [(row["outcome"], row["close_code"], row["sessions"]) for row in figures["troubles"]] == [("refused", 4003, 2)]
    of_music = [row for row in figures["course"] if row["endpoint"] == "music"]
    assert sum(row["sessions"] * row["seconds"] for row in of_music) == pytest.approx(10.0 * 20), "18 sessions and 2 refusals"
    assert sum(row["audio_hours_per_hour"] * row["seconds"] for row in of_music) == pytest.approx(20.0 * 18)


def test_the_sheets_have_all_that_is_flagged_and_no_formula(hostile, tmp_path):
    store, _ = hostile
    for name in ("flagged.csv", "flagged.parquet"):
        file = tmp_path / name
        file.write_bytes(store.get(run_file(RUN, name)))
        assert {row["key"] for _, row in read_sheet(file)} == {*HOSTILE, *PLAIN}
    rows = csv.reader(io.StringIO((tmp_path / "flagged.csv").read_bytes().decode(), newline=""))
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for row in rows for cell in row)


def test_hostile_keys_are_text_in_the_artifact_too(hostile):
    _, done = hostile
    from flows.report import Report  # noqa: PLC0415
    from moderation.outcomes import ExitCode  # noqa: PLC0415
    from tasks.progress import Progress  # noqa: PLC0415

    ended = Report(RUN, "s3://audio/a|b\n<script>/", "out", "Completed", ExitCode.OK, "", Progress())
    told = markdown_of(ended, done.report)
    assert not any(mark in told for mark in ("<", "](", "`", "\u202e"))
    tables = [line for line in told.splitlines() if line.startswith("|")]
    widths = {line.count("|") for line in tables}
    assert all(line.endswith("|") for line in tables)
    assert widths == {3, 5, 6, 7, 11}
    assert all(cell(key) in told for key in HOSTILE[1:])


def test_verify_knows_a_report(hostile):
    store, _ = hostile
    names = {finding.name for finding in verify(store, NOW, lambda _done, _total: None).findings}
    assert not any("report" in name or "flagged" in name for name in names)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    store = FolderStore(tmp_path_factory.mktemp("plain") / "results")
    reported_lake(store, PLAIN)
    return store


def test_a_report_shows_so_many_and_says_where_the_rest_is(plain, tmp_path):
    settings = fixed_settings(results=plain.url, report_items=3)
    done = report_runs(settings, Wanted(out=tmp_path / "mine.html"), lambda: NOW)
    assert (len(done.report.entries), done.report.flagged.height, done.report.local) == (3, 8, False)
    page = (tmp_path / "mine.html").read_text()
    assert 'href="mine.csv"' in page
    assert "The first 3 are shown here" in page
    assert len(list(read_sheet(tmp_path / "mine.csv"))) == 8
    assert plain.get(run_file(RUN, "report.html")) is None, "what goes elsewhere leaves the results alone"


@pytest.mark.torture
def test_costs_are_estimates_at_the_prices_of_the_settings(plain, tmp_path):
    settings = fixed_settings(results=plain.url, currency="EUR", prices={"music": 36})
    done = report_runs(settings, Wanted(out=tmp_path / "mine.html"), lambda: NOW)
    assert done.as_json()["estimated_costs"] == {
        "music": {"currency": "EUR", "estimated_cost": 1.6, "estimated_possible_cost": 0.4},
    }
    assert "Costs are estimated" in (tmp_path / "mine.html").read_text()


def test_links_to_audio_are_made_only_where_they_are_wanted_start_at_the_evidence_and_say_when_they_expire(plain, tmp_path, monkeypatch):
    for name, value in {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "mine.html"
    done = report_runs(fixed_settings(results=plain.url, link_hours=2), Wanted(out=out), lambda: NOW)
    [link, *_] = [entry.link for entry in done.report.entries]
    assert BUCKET in link
    assert "X-Amz-Expires=7200" in link
    assert link.endswith("#t=5")
    assert "until about 2 hours after 2026-11-21 08:00:00 UTC" in out.read_text()
    assert "X-Amz" not in json.dumps(done.as_json())
    report_runs(fixed_settings(results=plain.url), Wanted(out=out), lambda: NOW)
    assert "X-Amz" not in out.read_text()
    assert "without a password" not in out.read_text()


@pytest.mark.torture
def test_a_report_over_days_has_the_runs_that_began_then(tmp_path):
    """In a lake of its own, which has another newest run."""
    store = FolderStore(tmp_path / "results")
    reported_lake(store, PLAIN)
    later = "20261122T080000Z-0a1b2c"
    write_rows(store, "runs", later, date(2026, 11, 22), "end", [run_row(run_id=later, started_at=START + timedelta(days=2))])
    settings = fixed_settings(results=store.url)
    done = report_runs(settings, Wanted(since=START.date(), until=START.date(), out=tmp_path / "days.html"), lambda: NOW)
    assert done.report.figures.runs["run_id"].to_list() == [RUN]
    assert "runs from 2026-11-20 to 2026-11-20" in (tmp_path / "days.html").read_text()
    with connect(store.url) as lake:
        assert runs_between(lake, "default", None, None) == [RUN, later]
        assert find_run(lake, "default", RUN) == RUN
        for wrong in (lambda: runs_between(lake, "default", date(2027, 1, 1), None), lambda: find_run(lake, "others", None)):
            with pytest.raises(NoSuchRun):
                wrong()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(since=START.date()), "--out"),
        (Wanted(run_id=RUN, since=START.date()), "leave one of them out"),
    ],
)
def test_what_cannot_be_made_is_said(plain, wanted, said):
    with pytest.raises(WrongReport, match=said):
        report_runs(fixed_settings(results=plain.url), wanted, lambda: NOW)


def test_a_page_has_the_name_of_one(plain, tmp_path):
    with pytest.raises(WrongReport, match="html"):
        report_runs(fixed_settings(results=plain.url), Wanted(out=tmp_path / "mine.csv"), lambda: NOW)


@pytest.mark.torture
def test_a_run_without_a_session_has_figures_of_nothing(tmp_path):
    store = FolderStore(tmp_path / "results")
    write_rows(store, "runs", RUN, START.date(), "end", [run_row()])
    with connect(store.url) as lake:
        figures = read_figures(lake, [RUN])
    assert [getattr(figures, name).height for name in figures.__slots__] == [1, 0, 0, 0, 0, 0, 0]
    done = report_runs(fixed_settings(results=store.url), Wanted(), lambda: NOW)
    assert "0 objects are flagged" in Elements(page_of(store)).text
    assert done.report.entries == []


def test_the_command_makes_one(plain, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(["report", RUN, "--results", plain.url, "--out", "one.html", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["page"], said["flagged"], said["exit_code"]) == ("one.html", 8, 0)
    assert command(["report", "nothing", "--results", plain.url]) == 2
    assert identity_of(PLAIN[0]) in (tmp_path / "one.csv").read_text()


def test_who_is_erased_is_in_no_report_any_more(plain):
    report_runs(fixed_settings(results=plain.url), Wanted(run_id=RUN), lambda: NOW)
    names = [run_file(RUN, name) for name in ("report.html", "report.json", "flagged.csv", "flagged.parquet")]
    forget_pages(plain, Target.of(identity_of("somebody/else.mp3"), Scope.VERSION))
    assert all(map(plain.exists, names))
    forget_pages(plain, Target.of(identity_of(PLAIN[0]), Scope.VERSION))
    assert not any(map(plain.exists, names))


@pytest.mark.browser
@pytest.mark.net
@pytest.mark.skipif(executable() is None, reason="there is no Chromium on this machine")
async def test_in_a_browser_no_key_runs_nothing_is_asked_for_and_the_list_can_be_filtered_by_keyboard(hostile, tmp_path):
    store, _ = hostile
    address = f"file://{store.address(run_file(RUN, 'report.html'))}"
    async with browser(tmp_path) as page:
        await page.open(address)
        assert await page.ask("document.querySelectorAll('.queue > li').length") == 18
        texts = await page.ask("Array.from(document.querySelectorAll('h3 bdi'), (each) => each.textContent)")
        assert sorted(texts) == sorted(printable(key) for key in (*HOSTILE, *PLAIN))
        assert await page.ask("document.querySelector('[role=status]').textContent") == "18 of 18 objects are shown."
        await page.ask("document.querySelector('input[type=search]').focus()")
        for letter in "script":
            await page.press(letter)
        assert await page.ask("document.querySelector('[role=status]').textContent") == "4 of 18 objects are shown."
        await page.press("Tab")
        assert await page.ask("document.activeElement.tagName") == "SELECT"
        sorted_by_key = "const o = document.querySelectorAll('select')[2]; o.value = 'key'; o.dispatchEvent(new Event('input'));"
        await page.ask(f"(() => {{ {sorted_by_key} }})()")
        keys = await page.ask("Array.from(document.querySelectorAll('.queue > li'), (each) => each.dataset.key)")
        assert keys != texts
        assert sorted(keys) == sorted(texts)
        await page.ask("new Promise((done) => setTimeout(done, 200))")
        assert page.dialogs == []
        assert {request for request in page.requests if not request.startswith("data:")} == {address}
        assert page.complaints == []
