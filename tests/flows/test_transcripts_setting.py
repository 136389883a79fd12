"""Transcripts of a scan: a file a session, named like it, in the folder that the setting says."""

from moderation.transcript import from_lines, replay

KEY = "canary-5f0e9d1c7b"


async def test_every_session_of_a_scan_leaves_its_transcript(world, make_wav, tmp_path):
    world.put("a.wav", make_wav(5.0))
    world.put("b.wav", b"RIFF\xff\xff\xff\xffWAVE" + bytes(5000))
    folder = tmp_path / "said"
    await world.scan(transcripts=folder)
    files = {file.stem: file.read_bytes() for file in folder.iterdir()}
    # b.wav is tried once more as decoded here, which fails before there is a session
    attempts = dict(world.ask("SELECT session_id, outcome FROM attempts WHERE cause IS DISTINCT FROM 'not_decoded'"))
    assert files.keys() == attempts.keys()
    assert KEY.encode() not in b"".join(files.values())
    for session_id, content in files.items():
        session = replay(from_lines(content.splitlines()))
        assert (session.state == "done") == (attempts[session_id] == "done")
