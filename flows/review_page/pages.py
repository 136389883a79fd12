"""The pages themselves: keys, reasons and notes are anybody's text, and stay text.

Everything that a template puts in is escaped, and what is not printable shows as its escape.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from moderation.hosts import LOCAL_RESULTS
from moderation.policy import Answer
from moderation.printable import printable
from moderation.timeline import clock, draw, style_of
from tasks.desk import Filters, Show

FOLDER = Path(__file__).parent
ROWS = 100
"""Objects of the queue on one page of it."""
WORDS_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class View:
    """What an address says of what is looked at: the filters, the page of the queue from 1, and the answer that has just been given."""

    filters: Filters = field(default_factory=Filters)
    page: int = 1
    done: str = ""
    said: Answer | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Self:
        """The view of an address; what means nothing in it is as if it were not there."""
        show, said, page = query.get("show", ""), query.get("said", ""), query.get("page", "")
        return cls(
            Filters(
                Show(show) if show in set(Show) else Show.WAITING,
                query.get("rule", "")[:WORDS_CHARACTERS],
                query.get("words", "").strip()[:WORDS_CHARACTERS],
            ),
            int(page) if page.isascii() and page.isdigit() and len(page) < len(str(10**9)) and int(page) else 1,
            query.get("done", ""),
            Answer(said) if said in set(Answer) else None,
        )

    def query(self, *, page: int | None = None, done: str = "", said: Answer | None = None) -> str:
        """The same as it stands behind the question mark of an address; an answer is said once, and so not handed on."""
        told = {
            "show": self.filters.show.value,
            "rule": self.filters.rule,
            "words": self.filters.words,
            "page": (page or self.page) if (page or self.page) > 1 else "",
            "done": done,
            "said": said or "",
        }
        return urlencode({name: value for name, value in told.items() if value})


def environment() -> Environment:
    """What renders the templates beside this module."""
    made = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(clock=clock, style=style_of, seconds=lambda ms: f"{ms / 1000:g}")
    made.globals.update(
        drawn=lambda timeline, key: Markup(draw(timeline, "timeline", f"Timeline of {key}")),  # noqa: S704 - it escapes
        local_results=LOCAL_RESULTS,
        answers=list(Answer),
        shows=list(Show),
    )
    return made


def _shown(value: object) -> object:
    """What stands in the page for a value of an expression."""
    if value is None:
        return ""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
