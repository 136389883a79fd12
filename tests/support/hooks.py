"""A webhook on loopback that keeps what it is told."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

TOKEN = "T0KEN-of-the-webhook"


class Hook:
    """A webhook that keeps what it is told."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.told: list[dict[str, object]] = []

    @property
    def causes(self) -> list[object]:
        return [notice["cause"] for notice in self.told]


@asynccontextmanager
async def webhook(answer: Callable[[], web.Response] = web.Response) -> AsyncIterator[Hook]:
    async def hear(request: web.Request) -> web.Response:
        assert request.content_type == "application/json"
        hook.told.append(await request.json())
        return answer()

    application = web.Application()
    application.router.add_post(f"/{TOKEN}", hear)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        hook = Hook(f"http://127.0.0.1:{runner.addresses[0][1]}/{TOKEN}?secret={TOKEN}")
        yield hook
    finally:
        await runner.cleanup()
