"""The streaming endpoints: one row each. A new one is a row here, structs in messages.py, a dataset in lake/schemas.py."""

from dataclasses import dataclass

from moderation.messages import AiMusicDone, Done, Frame, Item, MusicDone, Window


@dataclass(frozen=True, slots=True)
class Shape:
    """One published form of an endpoint's items: the measurements it carries, and which of them may be null by its own words."""

    name: str
    measures: frozenset[str]
    nullable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A streaming endpoint of the Velma-2 family (seed pages).

    name is how settings, columns and commands call it; path is that of its URL; item_name is the message type of its results and
    the name of their field; item_ms is the audio that one item covers; default_host is the one that its seed page names.
    """

    name: str
    path: str
    default_host: str
    item_name: str
    item_ms: int
    item_type: type[Item]
    done_type: type[Done]
    count_field: str
    """The field of `done` that counts items."""
    label_field: str
    """The field of `done` that says what the object is."""
    shapes: tuple[Shape, ...]
    """Known forms of its items, the seed page's first."""
    last_item_may_be_short: bool = False
    """Whether a last item shorter than item_ms is tolerated (service.md, decision 20)."""

    def shape_of(self, present: frozenset[str]) -> Shape:
        """The form of an item that has these fields: the newest whose measurements are all there, else the first."""
        return next((shape for shape in reversed(self.shapes) if shape.measures <= present), self.shapes[0])


_SHARES = frozenset({"vocal_percentage", "instrumental_percentage", "silence_percentage"})


ENDPOINTS: dict[str, Endpoint] = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint(
            name="music",
            path="/api/velma-2-music-detection-streaming",
            default_host="wss://modulate-developer-apis.com",
            item_name="frame",
            item_ms=192,
            item_type=Frame,
            done_type=MusicDone,
            count_field="frame_count",
            label_field="primary_label",
            shapes=(Shape("1", frozenset({"music_prob", "speech_prob"})),),
        ),
        Endpoint(
            name="ai_music",
            path="/api/velma-2-ai-music-detection-streaming",
            default_host="wss://platform.modulate.ai",
            item_name="window",
            item_ms=4000,
            item_type=Window,
            done_type=AiMusicDone,
            count_field="window_count",
            label_field="primary_verdict",
            shapes=(
                Shape("1", _SHARES | {"vocal_ai_percentage", "vocal_ai_confidence"}),
                Shape("2", _SHARES | {"vocal_ai_probability"}, nullable=frozenset({"vocal_ai_probability"})),
            ),
            last_item_may_be_short=True,
        ),
    )
}
