"""The datasets of the result lake: the one source of their columns, for writers, readers and docs/data-dictionary.md.

Changes are additive only: a new column is nullable, and SCHEMA_VERSION counts up.
"""

from typing import NamedTuple

from connectors.lake.columns import Column, ColumnType, Dataset, count, instant, ms, percent, probability, text
from moderation.endpoints import ENDPOINTS
from moderation.policy import NO_RULE, Answer, Decision, HeldBack

SCHEMA_VERSION = 1
PARTITION = "scan_date"
"""The UTC date of a run's start: a directory in the lake, never a column in a file."""

METADATA_DATASET = "soundcheck.dataset"
METADATA_SCHEMA_VERSION = "soundcheck.schema_version"
METADATA_RUN_ID = "soundcheck.run_id"
METADATA_PACKAGE = "soundcheck.package"
"""Keys of the file metadata; every Parquet file bears the four, the last one empty where there is no package."""
METADATA_SOURCE = "soundcheck.source"
METADATA_WATERMARK = "soundcheck.watermark"
"""Of manifests: what was listed, and the instant (ISO 8601, UTC) of which it shows the state: what changed later may be missing."""

METADATA_MEMBERS = "soundcheck.members"
"""Of merged files: the packages whose rows they have, as JSON; they bear no run and no package of their own."""

_OBJECT_ID = text("object_id", "The version of the object: a hash of bucket, key and etag.", "32 hex digits")
_OBJECT_KEY_ID = text("object_key_id", "The place of the object, whatever lies there: a hash of bucket and key.", "32 hex digits")
_SESSION_ID = text("session_id", "The session that this comes from, sorted by time.", "UUIDv7")
REASONS = "word of rules.md"
"""The unit of columns with a reason of the closed list."""
_RUN_ID = text("run_id", "The run that this comes from, sorted by time.", "YYYYMMDDThhmmssZ-xxxxxx")
_ORG = text("org", "The organisation whose hours were used, as the settings name it.")
_ENDPOINT = text("endpoint", "The streaming endpoint.", " | ".join(ENDPOINTS))
_PARAMS_HASH = text("params_hash", "Everything that changes a result: audio parameters and transcoding.", "16 hex digits")
_VERSION_ID = text("version_id", "The version that was read, in a versioned bucket.", nullable=True)
_PLACE = (
    text("bucket", "The bucket, or the absolute path of a folder."),
    text("key", "The key in the bucket, or the path in the folder."),
    _VERSION_ID,
    text("etag", "The etag without quotes; of a file, its size and time of change."),
)
_SIZE = count("size_bytes", "The size of the object as listed.", "bytes")
_LAST_MODIFIED = instant("last_modified", "When this version was written.")
_SPAN = (ms("start_time_ms", "Where the item starts in the audio."), ms("end_time_ms", "Where the item ends in the audio, exclusive."))
_SESSION_TIMES = (instant("started_at", "When the connection was opened."), instant("finished_at", "When the session had its verdict."))
_CLOSE_CODE = count("close_code", "How the connection ended; null where it never opened.", "WebSocket close code", nullable=True)
_ATTEMPT = count("attempt", "Which attempt at the object this is, from 1.")

_SUMMARY_HEAD = (
    _OBJECT_ID,
    _OBJECT_KEY_ID,
    _SESSION_ID,
    _RUN_ID,
    text("package", "The package that published the session.", "<run_id>-pNNNN"),
    _ORG,
    _ENDPOINT,
    _PARAMS_HASH,
    *_PLACE,
    _SIZE,
    _LAST_MODIFIED,
    text("audio_format", "The format that was streamed, as the endpoint calls it."),
    count("sample_rate", "Of raw audio; null for containers.", "Hz", nullable=True),
    count("num_channels", "Of raw audio; null for containers.", nullable=True),
    text("transcoded_from", "The source's format where it was decoded locally first.", nullable=True),
    text("host", "The host that analysed it."),
    _ATTEMPT,
    *_SESSION_TIMES,
    ms("duration_ms", "The duration as the service says.", nullable=True),
    ms("covered_ms", "The audio that at least one item covers."),
    ms("expected_ms", "The duration by the object's own header, where that is trustworthy.", nullable=True),
    count("items_received", "Items kept of this session."),
    text("evidence", "Whether there is anything to judge.", "sufficient | insufficient"),
    text("quality_flags", "Why not to trust the result blindly: sorted, comma separated, empty when clean."),
    _CLOSE_CODE,
    text("wire_shape", "The known forms of the messages that were seen."),
    text("extra", "Unknown fields of the messages, as JSON.", nullable=True),
)


class EndpointDatasets(NamedTuple):
    """Where an endpoint's results lie; items_view is the view of its newest items."""

    items: Dataset
    summaries: Dataset
    items_view: str

    @property
    def figures(self) -> list[str]:
        """The columns that its summaries have besides those of every summary."""
        head = {column.name for column in _SUMMARY_HEAD}
        return [column.name for column in self.summaries.columns if column.name not in head]


def items_dataset(name: str, description: str, item: str, *measures: Column) -> Dataset:
    """A dataset of items; `item` is what one is called, measures are its columns besides identity, place and time."""
    ordinal = count(f"{item}_index", f"The {item}'s place in the order received, from 0.", "ordinal")
    columns = (_OBJECT_ID, _SESSION_ID, ordinal, *_SPAN, *measures)
    example = f"SELECT object_id, count(*) AS {item}s FROM {name} WHERE scan_date = DATE '2026-03-01' GROUP BY object_id"  # noqa: S608 - names of ours
    return Dataset(name, description, columns, ("object_id", "session_id", ordinal.name), example=example)


def summaries_dataset(name: str, description: str, *figures: Column) -> Dataset:
    """A dataset of summaries; figures are its columns besides those that every summary has."""
    example = f"SELECT key, duration_ms, quality_flags FROM {name} WHERE scan_date >= DATE '2026-03-01' AND org = 'acme'"  # noqa: S608 - as above
    return Dataset(name, description, (*_SUMMARY_HEAD, *figures), ("object_id", "session_id"), example=example)


_MUSIC_FRAMES = items_dataset(
    "music_frames",
    "192 ms of music and speech detection a row, as received.",
    "frame",
    probability("music_prob", "That there is music."),
    probability("speech_prob", "That there is speech."),
)
_AI_MUSIC_WINDOWS = items_dataset(
    "ai_music_windows",
    "4 s of AI-music detection a row, as received; the older or the newer shape's columns are null.",
    "window",
    percent("vocal_percentage", "Vocals in the window."),
    percent("vocal_ai_percentage", "AI-made of the vocals; older shape."),
    probability("vocal_ai_confidence", "How sure the service is of it; older shape."),
    percent("instrumental_percentage", "Instruments in the window."),
    percent("silence_percentage", "Silence in the window."),
    probability("vocal_ai_probability", "That the vocals are AI-made; newer shape, null where there was nothing to evaluate."),
    probability("instrumental_ai_probability", "That the instruments are AI-made; newer shape."),
)
_MUSIC_SUMMARIES = summaries_dataset(
    "music_summaries",
    "One finished session of the music endpoint a row.",
    count("frame_count", "Frames as the service counts them.", nullable=True),
    percent("music_pct", "Share of frames with music, as the service says."),
    percent("speech_pct", "Share of frames with speech, as the service says."),
    text(
        "primary_label",
        "The service's verdict; a label never seen before is kept.",
        "music | speech | neither | unknown",
        nullable=True,
    ),
    percent("music_pct_recomputed", "Share of frames with music at our threshold."),
    percent("speech_pct_recomputed", "Share of frames with speech at our threshold."),
    Column("threshold", ColumnType.DOUBLE, "probability, 0 to 1", "The threshold of the recomputed shares."),
)
_AI_MUSIC_SUMMARIES = summaries_dataset(
    "ai_music_summaries",
    "One finished session of the AI-music endpoint a row.",
    count("window_count", "Windows as the service counts them.", nullable=True),
    text(
        "primary_verdict",
        "The service's verdict; one never seen before is kept.",
        "ai-vocal-music | ai-instrumental | not-ai-music",
        nullable=True,
    ),
    percent("vocal_percentage", "Vocals in the clip."),
    percent("vocal_ai_percentage", "AI-made of the vocals."),
    probability("vocal_ai_confidence", "How sure the service is of it."),
    percent("instrumental_percentage", "Instruments in the clip."),
    percent("instrumental_ai_percentage", "AI-made of the instruments."),
    probability("instrumental_ai_confidence", "How sure the service is of it."),
    percent("silence_percentage", "Silence in the clip."),
)
SEGMENTS = Dataset(
    "segments",
    "Stretches of an object by what is in them, made when a session ends; of the AI-music endpoint those with AI-made vocals.",
    (
        _OBJECT_ID,
        _SESSION_ID,
        _ENDPOINT,
        count("segment_index", "The segment's place in the session, from 0.", "ordinal"),
        text("kind", "What is in it.", " | ".join(kind for endpoint in ENDPOINTS.values() for kind in endpoint.segment_kinds)),
        ms("start_time_ms", "Where the segment starts in the audio."),
        ms("end_time_ms", "Where the segment ends in the audio, exclusive."),
        count("item_count", "Items in it."),
        probability("mean_prob", "The mean over its items of what is named by its kind, of two the smaller; null where neither is in it."),
        probability("max_prob", "The greatest of the same."),
        Column("threshold", ColumnType.DOUBLE, "probability, 0 to 1", "From which on something is in it."),
        text("rule_version", "By which rules the segments were made."),
    ),
    ("object_id", "session_id", "segment_index"),
    example="SELECT object_id, start_time_ms, end_time_ms FROM segments WHERE kind = 'music' AND end_time_ms - start_time_ms > 60000",
)
_ATTEMPTS = Dataset(
    "attempts",
    "Every session that was opened or tried, the good ones too.",
    (
        _SESSION_ID,
        _RUN_ID,
        _ORG,
        _ENDPOINT,
        _OBJECT_ID,
        _ATTEMPT,
        text("worker", "The process that ran it."),
        *_SESSION_TIMES,
        text("phase", "How far it came.", "preflight | connecting | admitted | streaming | draining"),
        text("outcome", "How it ended.", "done | refused | failed | cancelled"),
        text("scope", "What its error is a fault of.", "object | config | key | org | service | network", nullable=True),
        text("cause", "Its error as rules.md classifies it.", nullable=True),
        count("http_status", "Of a refused upgrade.", "HTTP status", nullable=True),
        _CLOSE_CODE,
        text("error_text", "What the service said, redacted.", nullable=True),
        count("bytes_sent", "Audio bytes sent.", "bytes"),
        ms("audio_sent_ms", "Audio sent: possibly paid for, even where it failed."),
        count("items_received", "Items received before it ended."),
    ),
    ("object_id", "session_id"),
    example="SELECT endpoint, outcome, count(*) AS sessions FROM attempts WHERE scan_date = DATE '2026-03-01' GROUP BY endpoint, outcome",
)
_QUARANTINE = Dataset(
    "quarantine",
    "An event log of objects that need a person; the view quarantined_now has the state.",
    (
        _OBJECT_ID,
        *_PLACE,
        _ORG,
        _ENDPOINT,
        _PARAMS_HASH,
        text("event", "What happened.", "quarantined | released"),
        text("reason", "Why, from the closed list of rules.md.", REASONS),
        text("detail", "A sentence for people; of a release, who released it and why.", nullable=True),
        _RUN_ID,
        instant("happened_at", "When."),
    ),
    ("object_id", "endpoint", "params_hash", "happened_at"),
    example="SELECT happened_at, event, reason, detail FROM quarantine WHERE key = 'songs/one.mp3' ORDER BY happened_at",
)
_RUNS = Dataset(
    "runs",
    "A row at a run's start and one at its end; the view runs_latest takes the last.",
    (
        _RUN_ID,
        text("flow", "What kind of run.", "scan | backfill | retry"),
        _ORG,
        text("source", "What was listed: a URL, a folder or a key list."),
        text("parameters", "The run's parameters as JSON, without secrets."),
        text("fingerprint", "A hash of the settings that shape the run."),
        text("code_version", "The version of soundcheck."),
        text("prefect_flow_run_id", "The flow run in Prefect.", "UUID", nullable=True),
        instant("started_at", "When the run started."),
        instant("finished_at", "When it ended; null in the row of the start.", nullable=True),
        text("state", "The flow state by name, as in rules.md."),
        count("exit_code", "The exit code of rules.md; null in the row of the start.", "exit code", nullable=True),
        text("stop_cause", "Why it ended before its plan did.", nullable=True),
        count("objects_listed", "Objects in the manifest."),
        count("planned", "Planned to be streamed: pairs of object and endpoint."),
        count("done", "Of the planned, done."),
        count("quarantined", "Of the planned, newly quarantined."),
        count("skipped", "Not planned: nothing to analyse."),
        count("pending", "Of the planned, left for a later run."),
        ms("audio_ms_settled", "Spent on results."),
        ms("audio_ms_at_risk", "Sent without a result: possibly spent."),
        ms("audio_ms_saved", "Not streamed thanks to the cascade."),
    ),
    ("run_id",),
    example="SELECT run_id, state, started_at, finished_at FROM runs WHERE org = 'acme' ORDER BY run_id",
)
_MANIFESTS = Dataset(
    "manifests",
    "What a run's source listed, one object version a row, immutable.",
    (
        *_PLACE,
        _SIZE,
        _LAST_MODIFIED,
        text("storage_class", "The S3 storage class, where the listing names it.", nullable=True),
        _OBJECT_ID,
        _OBJECT_KEY_ID,
    ),
    partitioned=False,
    stem="manifest",
    example="SELECT run_id, count(*) AS objects, sum(size_bytes) AS total_bytes FROM manifests GROUP BY run_id",
)
_PLAN = Dataset(
    "plan",
    "What a run means to do, a row for each object and endpoint.",
    (
        _OBJECT_ID,
        _ENDPOINT,
        _PARAMS_HASH,
        text("decision", "What is to be done.", "stream | done | quarantined | skip"),
        text("reason", "Why it is not streamed, from the closed list of rules.md.", REASONS, nullable=True),
        text("audio_format", "The format that will be streamed.", nullable=True),
        count("sample_rate", "Of raw audio.", "Hz", nullable=True),
        count("num_channels", "Of raw audio.", nullable=True),
        text("transcoded_from", "The source's format where it is decoded locally first.", nullable=True),
        ms("estimate_ms", "The audio that it is expected to cost."),
        text("estimate_source", "Where the estimate comes from."),
        count("shard", "The shard that streams it, from 0.", "ordinal", nullable=True),
    ),
    partitioned=False,
    stem="plan",
    example="SELECT endpoint, decision, reason, count(*) AS objects FROM plan GROUP BY endpoint, decision, reason",
)


_RULE_ID = text("rule_id", f"The rule that was the first to hold; {NO_RULE} where none did.")
_POLICY_HASH = text("policy_hash", "The meaning of the policy, which lies under _policies/ by this name.", "16 hex digits")
_HELD_BACK = text("held_back", "Why it is left to a person whatever its rule says.", " | ".join(HeldBack), nullable=True)
_DECISIONS = Dataset(
    "decisions",
    "What policies have made of the results, a row whenever that changed; decisions_latest has the last, decisions_now what counts.",
    (
        _OBJECT_ID,
        _OBJECT_KEY_ID,
        _ORG,
        *_PLACE,
        text("policy", "The policy by its name."),
        _POLICY_HASH,
        instant("decided_at", "When; always after the decision before."),
        text("decision", "What is to become of the object.", " | ".join(Decision)),
        _RULE_ID,
        _HELD_BACK,
        text("reason", "Why, in the words of the rule."),
        count("priority", "The rank of its rule among what is reviewed, the highest first.", "rank"),
        text("evidence_sessions", "The sessions that it goes back to, comma separated; empty where there is no result.", "UUIDv7"),
        ms(
            "evidence_start_ms",
            "Where the longest segment of what the rule is about starts; null where the rule names no sound.",
            nullable=True,
        ),
        ms("evidence_end_ms", "Where it ends, exclusive.", nullable=True),
        _RUN_ID,
    ),
    ("object_id",),
    example="SELECT decided_at, decision, rule_id, policy_hash FROM decisions WHERE key = 'songs/one.mp3' ORDER BY decided_at",
)
_REVIEW_ANSWERS = Dataset(
    "review_answers",
    "What people say of objects, every answer; the view answers_latest has each object's last that decides.",
    (
        _OBJECT_ID,
        text("reviewer", "Who."),
        instant("answered_at", "When."),
        text("answer", "What they say.", " | ".join(Answer)),
        text("note", "Why, in their words.", nullable=True),
        text("decision_before", "The policy's decision when they said it.", " | ".join(Decision)),
        _RULE_ID,
        _POLICY_HASH,
        _HELD_BACK,
    ),
    ("object_id", "answered_at"),
    example="SELECT reviewer, count(*) AS answers FROM review_answers WHERE answer = 'block' GROUP BY reviewer",
)


ENDPOINT_DATASETS: dict[str, EndpointDatasets] = {
    "music": EndpointDatasets(_MUSIC_FRAMES, _MUSIC_SUMMARIES, "frames_latest"),
    "ai_music": EndpointDatasets(_AI_MUSIC_WINDOWS, _AI_MUSIC_SUMMARIES, "windows_latest"),
}
"""By the name of the endpoint: with its row in moderation.endpoints, all that a new one needs here."""


def datasets() -> dict[str, Dataset]:
    """Every dataset by its name: items, segments, summaries, then what belongs to no endpoint."""
    ours = ENDPOINT_DATASETS.values()
    results = (*(kind.items for kind in ours), SEGMENTS, *(kind.summaries for kind in ours))
    every = (*results, _ATTEMPTS, _QUARANTINE, _DECISIONS, _REVIEW_ANSWERS, _RUNS, _MANIFESTS, _PLAN)
    return {dataset.name: dataset for dataset in every}
