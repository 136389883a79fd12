"""The streaming endpoints: one row each. A new one is a row here, structs in messages.py, a dataset in lake/schemas.py."""

from dataclasses import dataclass
from itertools import combinations

from moderation.messages import AiMusicDone, Done, Frame, Item, MusicDone, Shape, Window


@dataclass(frozen=True, slots=True)
class Track:
    """Something that an endpoint hears or does not: a kind of segment.

    tells names the measurements by which it is on or off, the first that is there counts, each with the factor that makes it 0 to 1;
    sure names those that say how sure that is, where they are others.
    """

    kind: str
    tells: tuple[tuple[str, float], ...]
    sure: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A streaming endpoint of the Velma-2 family (seed pages).

    name is how settings, columns and commands call it; path is that of its URL; item_ms is the audio that one item covers;
    default_host is the one that its seed page names.
    """

    name: str
    path: str
    default_host: str
    item_ms: int
    item_type: type[Item]
    done_type: type[Done]
    count_field: str
    """The field of `done` that counts items."""
    shapes: tuple[Shape, ...]
    """Known forms of its items, the seed page's first."""
    label_field: str | None = None
    """The field of `done` that says what the object is."""
    labels: tuple[str, ...] = ()
    """The values of that field which do say it; any other sends an object to a person."""
    shares: tuple[tuple[str, str], ...] = ()
    """The percentages of `done` that are the share of items over a threshold, each with their measurement (service.md, decision 23)."""
    tracks: tuple[Track, ...] = ()
    """What its segments are of."""
    rest: str | None = None
    """The kind of a segment where no track is on; None where such stretches are no segments."""
    last_item_may_be_short: bool = False
    """Whether a last item shorter than item_ms is tolerated (service.md, decision 20)."""

    @property
    def item_name(self) -> str:
        """The message type of its results, and the name of their field."""
        return self.item_type.wire_name

    @property
    def segment_kinds(self) -> tuple[str, ...]:
        """Every kind of segment that it may have: each of its tracks, those that are on together, and the rest."""
        kinds = ["+".join(track.kind for track in on) for size in range(1, len(self.tracks) + 1) for on in combinations(self.tracks, size)]
        return tuple(kinds if self.rest is None else [*kinds, self.rest])

    @property
    def sounds(self) -> tuple[str, ...]:
        """What a segment may have in it, each by itself: its tracks, and the rest."""
        tracks = tuple(track.kind for track in self.tracks)
        return tracks if self.rest is None else (*tracks, self.rest)

    def kinds_with(self, sound: str) -> tuple[str, ...]:
        """The kinds of segments that have a sound in them."""
        return tuple(kind for kind in self.segment_kinds if sound in kind.split("+"))

    def shape_of(self, present: frozenset[str]) -> Shape:
        """The form of an item that has these fields: the newest whose measurements are all there, else the first."""
        return next((shape for shape in reversed(self.shapes) if shape.measures <= present), self.shapes[0])


_PARTS = frozenset({"vocal_percentage", "instrumental_percentage", "silence_percentage"})


ENDPOINTS: dict[str, Endpoint] = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint(
            name="music",
            path="/api/velma-2-music-detection-streaming",
            default_host="wss://modulate-developer-apis.com",
            item_ms=192,
            item_type=Frame,
            done_type=MusicDone,
            count_field="frame_count",
            shapes=(Shape("1", frozenset({"music_prob", "speech_prob"})),),
            label_field="primary_label",
            labels=("music", "speech", "neither"),
            shares=(("music_pct", "music_prob"), ("speech_pct", "speech_prob")),
            tracks=(Track("music", (("music_prob", 1.0),)), Track("speech", (("speech_prob", 1.0),))),
            rest="neither",
        ),
        Endpoint(
            name="ai_music",
            path="/api/velma-2-ai-music-detection-streaming",
            default_host="wss://platform.modulate.ai",
            item_ms=4000,
            item_type=Window,
            done_type=AiMusicDone,
            count_field="window_count",
            shapes=(
                Shape("1", _PARTS | {"vocal_ai_percentage", "vocal_ai_confidence"}),
                Shape("2", _PARTS | {"vocal_ai_probability"}, nullable=frozenset({"vocal_ai_probability"})),
            ),
            label_field="primary_verdict",
            labels=("ai-vocal-music", "ai-instrumental", "not-ai-music"),
            tracks=(
                Track(
                    "ai_vocal",
                    (("vocal_ai_probability", 1.0), ("vocal_ai_percentage", 0.01)),
                    sure=(("vocal_ai_probability", 1.0), ("vocal_ai_confidence", 1.0)),
                ),
            ),
            last_item_may_be_short=True,
        ),
    )
}
