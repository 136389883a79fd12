"""What goes out of an object, first and after the service could not decode it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from connectors.audio_store import FolderAudioStore
from connectors.media.local_decoder import LocalDecoder
from moderation.catalogue import AudioObject
from moderation.endpoints import ENDPOINTS
from moderation.formats import AudioFormat, StreamParameters
from moderation.refusals import BAD_PARAMETERS, INCOMPLETE, UNDECODABLE
from moderation.sniffing import Content
from moderation.transcoding import SourceFormat, Transcode
from tasks.outgoing import Outlet
from tasks.records import PlannedObject

MP3 = StreamParameters(AudioFormat.MP3)
ITEM = AudioObject("music", "a.mp3", "e1", 4096, datetime(2026, 11, 21, tzinfo=UTC))
PLANNED = PlannedObject(ITEM, ENDPOINTS["music"], MP3, "h1", 1000, 990)


@pytest.fixture
def outlet(tmp_path):
    return Outlet(FolderAudioStore(tmp_path), LocalDecoder(), Transcode.AUTO, 6.0)


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("parameters", "again"),
    [
        (MP3, None),
        (StreamParameters(AudioFormat.F32LE, 22_050, 2), StreamParameters(AudioFormat.S16LE, 22_050, 2)),
    ],
    ids=str,
)
def test_after_a_4002_an_object_gets_one_more_try_with_the_same_identity(outlet, parameters, again):
    planned = replace(PLANNED, parameters=parameters)
    second = outlet.decoded_here(planned, UNDECODABLE)
    assert second == replace(planned, parameters=again, transcoded_from=SourceFormat.like(parameters))
    assert outlet.decoded_here(second, UNDECODABLE) is None


@pytest.mark.fault(30)
@pytest.mark.parametrize("cause", [BAD_PARAMETERS, INCOMPLETE], ids=lambda cause: cause.name)
def test_other_faults_do_not_make_it_another_format(outlet, cause):
    assert outlet.decoded_here(PLANNED, cause) is None


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    "planned",
    [
        replace(PLANNED, parameters=StreamParameters(AudioFormat.S16LE, 8000, 1)),
        replace(PLANNED, parameters=StreamParameters(AudioFormat.S16LE, 8000, 1), transcoded_from=SourceFormat(Content.MP4)),
        replace(PLANNED, parameters=None, transcoded_from=SourceFormat(Content.MP4)),
    ],
    ids=["raw that would go out the same again", "decoded already", "never decoded"],
)
def test_what_would_go_out_the_same_again_gets_none(outlet, planned):
    assert outlet.decoded_here(planned, UNDECODABLE) is None


@pytest.mark.fault(30)
def test_nothing_is_decoded_where_that_may_not_be(outlet):
    assert replace(outlet, transcode=Transcode.NEVER).decoded_here(PLANNED, UNDECODABLE) is None
