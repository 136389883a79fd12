"""Audio objects as a catalogue lists them, what their names say, and how a plan is cut into shards."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from moderation.errors import BadParameters
from moderation.formats import CONTAINERS, AudioFormat
from moderation.identity import object_id, object_key_id
from moderation.outcomes import Reason
from moderation.sniffing import NOT_MEDIA, UNSUPPORTED_AUDIO, Content
from moderation.transcoding import SourceFormat

SIDECAR_SUFFIX = ".json"
ARCHIVED_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""S3 storage classes whose objects cannot be read without a restore."""
_EXTENSIONS: dict[str, AudioFormat | Content] = {
    **{kind.value: kind for kind in CONTAINERS},
    "wave": AudioFormat.WAV,
    "bwf": AudioFormat.WAV,
    "aif": AudioFormat.AIFF,
    "aifc": AudioFormat.AIFF,
    "oga": AudioFormat.OGG,
    "opus": AudioFormat.OGG,
    "weba": AudioFormat.WEBM,
    "m4a": Content.MP4,
    "m4b": Content.MP4,
    "mp4": Content.MP4,
    "mov": Content.MP4,
    "wma": Content.WMA,
    "wmv": Content.WMA,
    "mka": Content.MATROSKA,
    "mkv": Content.MATROSKA,
    "caf": Content.CAF,
    "amr": Content.AMR,
    "mp2": Content.MP2,
    "avi": Content.AVI,
    "w64": Content.WAVE64,
    "mpg": Content.MPEG_VIDEO,
    "mpeg": Content.MPEG_VIDEO,
}
"""What the ends of names promise, where they promise one kind."""
_RAW_EXTENSIONS = frozenset({"raw", "pcm", *(f.value for f in AudioFormat if f.is_raw)})
_METADATA_NAMES = {"audio_format": "audio-format", "sample_rate": "sample-rate", "num_channels": "num-channels"}


@dataclass(frozen=True, slots=True)
class AudioObject:
    """One version of an object in a bucket, as a listing gives it. etag without quotes; last_modified in UTC."""

    bucket: str
    key: str
    etag: str
    size_bytes: int
    last_modified: datetime
    version_id: str | None = None
    storage_class: str | None = None

    @property
    def object_id(self) -> str:
        """Identity of this version."""
        return object_id(self.bucket, self.key, self.etag)

    @property
    def object_key_id(self) -> str:
        """Identity of its place, whatever lies there."""
        return object_key_id(self.bucket, self.key)

    @property
    def extension(self) -> str:
        """What the name claims to be, in lower case, without the dot; empty without one."""
        name = self.key.rpartition("/")[2]
        return name.rpartition(".")[2].lower() if "." in name else ""


@dataclass(frozen=True, slots=True)
class ParameterRule:
    """An ordered rule of the settings: raw PCM parameters for keys that match a glob."""

    glob: str
    audio_format: str
    sample_rate: int
    num_channels: int

    def matches(self, key: str) -> bool:
        """Whether the key fits the glob, case and all."""
        return fnmatchcase(key, self.glob)

    def source(self) -> SourceFormat:
        """What the rule says. Raises BadParameters."""
        return SourceFormat.of(self.audio_format, self.sample_rate, self.num_channels)


class NotStreamable(Exception):
    """An object that no session will be opened for, with the reason and a sentence for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def stated_source(
    key: str, sidecar: Mapping[str, Any] | None, metadata: Mapping[str, str], rules: Sequence[ParameterRule]
) -> SourceFormat | None:
    """What somebody wrote down about an object: its sidecar, else its S3 metadata, else the first rule that matches.

    None where nobody did. Raises BadParameters where it is wrong.
    """
    if sidecar is not None:
        return _stated(sidecar)
    if any(name in metadata for name in _METADATA_NAMES.values()):
        return _stated({name: metadata.get(written) for name, written in _METADATA_NAMES.items()})
    rule = next((rule for rule in rules if rule.matches(key)), None)
    return rule.source() if rule else None


def _stated(words: Mapping[str, Any]) -> SourceFormat:
    return SourceFormat.of(str(words.get("audio_format")), words.get("sample_rate"), words.get("num_channels"))


def resolve_source(item: AudioObject, content: AudioFormat | Content, stated: SourceFormat | None) -> SourceFormat:
    """What an object is: what its bytes say, else what is written down about it. Raises NotStreamable for what is no audio.

    Bytes that are a container win over every name and word (service.md, decision 18); raw PCM has no mark of its own.
    """
    if isinstance(content, AudioFormat) or content in UNSUPPORTED_AUDIO:
        return SourceFormat(content)
    if stated is not None and stated.is_raw:
        return stated
    if content in NOT_MEDIA:
        raise NotStreamable(Reason.NOT_AUDIO, f"the bytes are {content}")
    if item.extension in _RAW_EXTENSIONS:
        raise NotStreamable(
            Reason.UNKNOWN_PARAMETERS, f"raw audio needs {item.key}{SIDECAR_SUFFIX}, object metadata or a rule in the settings"
        )
    if item.extension in CONTAINERS or (stated is not None):
        raise NotStreamable(Reason.UNDECODABLE, f"named {item.extension or stated}, but the bytes are of no known audio format")
    raise NotStreamable(Reason.NOT_AUDIO, "neither name nor bytes are of a known audio format")


def disagreement(item: AudioObject, content: AudioFormat | Content, stated: str | None) -> str | None:
    """What an object is called against what its bytes are, in a sentence; None where they agree, or where its name promises nothing.

    stated is what a sidecar, object metadata or a rule says of it, if one does: they are about raw audio, which has no mark of its own.
    """
    if content is Content.UNKNOWN:
        return None
    if stated is not None and content not in NOT_MEDIA:
        return f"{stated}, but its bytes are {content}"
    named = _EXTENSIONS.get(item.extension)
    if named is None and item.extension in _RAW_EXTENSIONS and content not in NOT_MEDIA:
        return f"named .{item.extension}, but its bytes are {content}"
    return f"named .{item.extension}, but its bytes are {content}" if named not in {None, content} else None


def parameters_reason(error: BadParameters) -> NotStreamable:
    """The same as an outcome of planning."""
    return NotStreamable(error.reason, str(error))


@dataclass(frozen=True, slots=True)
class ShardRules:
    """The bounds of a shard: how much a worker takes at once, and how much is told apart in Prefect."""

    max_objects: int = 500
    max_audio_ms: int = 20 * 3600 * 1000


_CLASS_BITS = 4


def length_class(estimate_ms: int) -> int:
    """What a plan sorts by, longest first: the shortest length of those that count as equal, which differ by less than an eighth.

    Were they sorted by the length itself, sessions that begin together would end together, again and again. Were classes wider, a long
    object could begin last in a catalogue of similar lengths.
    """
    fine_bits = max(0, estimate_ms.bit_length() - _CLASS_BITS)
    return estimate_ms >> fine_bits << fine_bits


def plan_shards(estimates_ms: Iterable[int], rules: ShardRules) -> Iterator[list[int]]:
    """The objects of a plan (by position) cut into shards, each within both bounds (one longer object makes its own).

    The longest class goes first; within one they keep their order.
    """
    estimates = list(estimates_ms)
    shard: list[int] = []
    audio = 0
    for position in sorted(range(len(estimates)), key=lambda i: (-length_class(estimates[i]), i)):
        if shard and (len(shard) >= rules.max_objects or audio + estimates[position] > rules.max_audio_ms):
            yield shard
            shard, audio = [], 0
        shard.append(position)
        audio += estimates[position]
    if shard:
        yield shard
