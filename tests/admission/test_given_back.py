"""A slot is the next object's once its connection has closed, while the session before is still spooled and booked: scans over sockets."""

from itertools import count

from scanning import scanning
from tasks import trial


async def test_the_next_one_streams_before_the_last_one_is_spooled_unless_others_wait_for_what_that_one_has_to_tell(
    put, tmp_path, monkeypatch
):
    """The first one shows whether the key is taken: its slot is given back with its booking. Nobody asks for the last one's."""
    for number in range(4):
        put(f"{number}.ulaw", 1.0 + number)
    keep, numbers = trial.keep, count(1)
    async with scanning(tmp_path, connections=1) as world:

        async def keep_late(*spooled, **named) -> None:
            number = next(numbers)
            if number in {2, 3}:
                await world.seen.until(lambda seen: len(seen.events("connect")) == number + 1)
            await keep(*spooled, **named)

        monkeypatch.setattr(trial, "keep", keep_late)
        report = await world.scan()
        assert report.counts()["done"] == 4
        assert [row.closed for row in await world.rows()] == [False, True, True, False]
        assert report.progress.of("music").live == 0
        assert {line["live"] for line in world.seen.events("connect")} == {1}
        assert world.seen.events("refused") == []
