"""What the review page answers to each address. The lake is read and written in threads, the queue and answers one after the other."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import hdrs, web
from jinja2 import Environment

from connectors.audio_store import AudioStore
from flows.review_page.guard import CSRF_FIELD, ENTER, SESSION, Guard, add_headers, refusal
from flows.review_page.pages import FOLDER, ROWS, View, environment
from flows.review_page.playing import Sound, find_sound, play, status_of
from moderation.errors import SoundcheckError
from moderation.policy import Answer
from tasks.desk import Desk
from tasks.records import Run
from tasks.review_sheets import AnswersRefused

FORM_BYTES = 64 * 1024
NOTE_CHARACTERS = 2000
AUDIO_PATIENCE_S = 10.0
"""How long a page waits for what tells whether its object can be played; the rest of the page is worth more."""
LONGEST_TELLING_S = 12.0
"""At the end, for who is told: one try of a webhook and a bit."""
_STATIC = {"page.css": "text/css", "page.js": "text/javascript"}


@dataclass(slots=True)
class ReviewPage:
    """One reviewer's page over a desk. new_run names the write of an answer at an instant, tell is for who is told what it has changed."""

    desk: Desk
    audio: AudioStore
    reviewer: str
    org: str
    new_run: Callable[[datetime], Run]
    tell: Callable[[], Coroutine[Any, Any, None]]
    now: Callable[[], datetime]
    templates: Environment = field(default_factory=environment)
    _turns: asyncio.Lock = field(default_factory=asyncio.Lock)
    _sounds: dict[str, Sound] = field(default_factory=dict)
    """What was found to be playable: it stays so, since every read holds its etag."""
    _telling_turns: asyncio.Lock = field(default_factory=asyncio.Lock)
    _telling: set[asyncio.Task[None]] = field(default_factory=set)

    def application(self, guard: Guard) -> web.Application:
        """The server's paths behind the guard."""
        made = web.Application(middlewares=[guard.middleware()], client_max_size=FORM_BYTES)
        made.on_response_prepare.append(add_headers)
        made.on_cleanup.append(self._all_told)
        identity = "{object_id:[0-9a-f]{32}}"
        made.add_routes(
            [
                web.get(ENTER, guard.enter, allow_head=False),
                web.get("/", self.queue),
                web.get(f"/object/{identity}", self.one),
                web.post(f"/object/{identity}", self.answer),
                web.get(f"/audio/{identity}", self.sound, allow_head=False),
                web.get("/static/{name}", self.static),
            ]
        )
        return made

    async def queue(self, request: web.Request) -> web.Response:
        """The list of what passes the filters, read anew."""
        view = View.of(request.query)
        async with self._turns:
            await asyncio.to_thread(self.desk.read)
        rows = view.filters.apply(self.desk.rows)
        pages = max(1, -(-rows.height // ROWS))
        page = min(view.page, pages)
        told: dict[str, Any] = {"rows": rows.slice((page - 1) * ROWS, ROWS).to_dicts(), "first": (page - 1) * ROWS + 1, "of": rows.height}
        rules = sorted(self.desk.rows["rule_id"].unique())
        return self._html("queue.html.jinja", view=view, pages=pages, page=page, rules=rules, **told)

    async def one(self, request: web.Request) -> web.Response:
        """An object with its timeline, its audio and the answers."""
        row = self._row(request)
        return await self._object(request, row)

    async def answer(self, request: web.Request) -> web.Response:
        """Put an answer on record and go on to the next object."""
        row, form, view = self._row(request), await request.post(), View.of(request.query)
        word, note = str(form.get("answer", "")), " ".join(str(form.get("note", "")).split())
        if word not in set(Answer):
            return refusal(400, f"An answer is one of {', '.join(Answer)}.")
        if len(note) > NOTE_CHARACTERS:
            return await self._object(request, row, f"Nothing was recorded: a note has at most {NOTE_CHARACTERS:,} characters.", 400)
        place = self.desk.place(row["object_id"], view.filters)
        async with self._turns:
            at = self.now()
            said = {"answer": word, "note": note}
            try:
                recorded = await asyncio.to_thread(self.desk.answer, self.new_run(at), row["object_id"], said, self.reviewer, at)
            except AnswersRefused as error:
                return await self._object(request, row, str(error), 409)
        if recorded is not None:
            self._tell_soon()
        there = f"/object/{place.after}" if place.after else "/"
        return web.Response(status=303, headers={hdrs.LOCATION: f"{there}?{view.query(done=row['object_id'], said=Answer(word))}"})

    async def sound(self, request: web.Request) -> web.StreamResponse:
        """The audio of an object on the desk, and of nothing else."""
        row = self._row(request)
        try:
            found = self._sounds.get(row["object_id"]) or await self._find_sound(row)
            return await play(self.audio, found, request)
        except SoundcheckError as error:
            return refusal(status_of(error), str(error))

    async def static(self, request: web.Request) -> web.StreamResponse:
        """Style and script."""
        name = request.match_info["name"]
        if name not in _STATIC:
            raise web.HTTPNotFound
        return web.FileResponse(FOLDER / name, headers={hdrs.CONTENT_TYPE: f"{_STATIC[name]}; charset=utf-8"})

    def _tell_soon(self) -> None:
        """Tell it without making the reviewer wait for who is told."""
        task = asyncio.create_task(self._tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self) -> None:
        """One after the other: each tells whatever is not told yet."""
        async with self._telling_turns:
            await self.tell()

    async def _all_told(self, _: web.Application) -> None:
        """Wait for what is being told; what takes longer is on disk as a dead letter is, or told by the next who decides or answers."""
        if self._telling:
            ended = await asyncio.wait(self._telling, timeout=LONGEST_TELLING_S)
            for task in ended[1]:
                task.cancel()

    async def _object(self, request: web.Request, row: Mapping[str, Any], problem: str = "", status: int = 200) -> web.Response:
        view = View.of(request.query)
        evidence = await asyncio.to_thread(self.desk.evidence, row)
        mute = ""
        try:
            async with asyncio.timeout(AUDIO_PATIENCE_S):
                await self._find_sound(row)
        except SoundcheckError as error:
            mute = str(error)
        except TimeoutError:
            mute = f"nobody has answered within {AUDIO_PATIENCE_S:.0f} s where it lies: open this page anew to try again"
        place = self.desk.place(row["object_id"], view.filters)
        found = {"row": row, "evidence": evidence, "timeline": evidence.timeline, "place": place}
        told = {"mute": mute, "problem": problem, "csrf": request[SESSION]}
        return self._html("object.html.jinja", status, view=view, **found, **told)

    async def _find_sound(self, row: Mapping[str, Any]) -> Sound:
        found = await find_sound(self.audio, row)
        self._sounds[row["object_id"]] = found
        return found

    def _row(self, request: web.Request) -> Mapping[str, Any]:
        """The row of the object that an address names. Raises HTTPNotFound for what does not lie on the desk."""
        row = self.desk.find(request.match_info["object_id"])
        if row is None:
            raise web.HTTPNotFound(text="This object is not in the queue.\n")
        return row

    def _html(self, template: str, status: int = 200, *, view: View, **values: Any) -> web.Response:
        done = self.desk.find(view.done) if view.said else None
        shared = {"org": self.org, "reviewer": self.reviewer, "csrf_field": CSRF_FIELD, "done": done, "note_characters": NOTE_CHARACTERS}
        text = self.templates.get_template(template).render(view=view, **shared, **values)
        return web.Response(status=status, text=text, content_type="text/html")
