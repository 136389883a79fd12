"""A headless Chromium over its own protocol: a page is opened, asked and photographed; dialogs, requests and complaints are on record."""

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

PATIENCE_S = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def executable() -> str | None:
    """The Chromium of this machine, where there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """A page of the browser. dialogs, requests (URLs) and complaints (console, Content-Security-Policy) are what has happened in it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.session: str | None = None
        self.dialogs: list[str] = []
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol and its answer."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": self.session} if self.session else {})
        await self._socket.send_json(message)
        async with asyncio.timeout(PATIENCE_S):
            return await self._answers[number]

    async def open(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE_S):
            await self._loaded.wait()

    async def ask(self, expression: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def press(self, key: str) -> None:
        """Press a key such as Tab, Enter or "a"."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        told = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key.upper()[0])), "text": text}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **told)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def photograph(self, file: Path) -> None:
        """What is seen of it, as PNG."""
        answer = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(file.write_bytes, base64.b64decode(answer["data"]))

    async def _listen(self) -> None:
        async for message in self._socket:
            told = message.json()
            if answer := self._answers.pop(told.get("id", 0), None):
                answer.set_result(told.get("result", {"error": told.get("error")}))
            happened, facts = told.get("method"), told.get("params", {})
            if happened == "Page.loadEventFired":
                self._loaded.set()
            elif happened == "Page.javascriptDialogOpening":
                self.dialogs.append(facts["message"])
                closing = {"id": next(self._numbers), "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                await self._socket.send_json(closing | {"sessionId": self.session})
            elif happened == "Network.requestWillBeSent":
                self.requests.append(facts["request"]["url"])
            elif happened == "Log.entryAdded":
                self.complaints.append(facts["entry"]["text"])


@asynccontextmanager
async def browser(folder: Path, *, width: int = 1100, height: int = 1400) -> AsyncIterator[Page]:
    """A new page of a Chromium of its own for the block. Raises LookupError where there is none."""
    program = executable()
    if program is None:
        raise LookupError("there is no Chromium on this machine")
    profile = folder / "chromium"
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0")
    quiet = ("--disable-background-networking", "--disable-component-update", "--hide-scrollbars", f"--window-size={width},{height}")
    nowhere = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        program, *options, *quiet, f"--user-data-dir={profile}", "about:blank", stdout=nowhere, stderr=nowhere
    )
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(await _address(profile), max_msg_size=0) as socket:
            page = Page(socket)
            listening = asyncio.create_task(page._listen())
            target = (await page.call("Target.createTarget", url="about:blank"))["targetId"]
            page.session = (await page.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                await page.call(f"{domain}.enable")
            yield page
            listening.cancel()
    finally:
        process.terminate()
        await process.wait()


async def _address(profile: Path) -> str:
    place = profile / "DevToolsActivePort"
    async with asyncio.timeout(PATIENCE_S):
        while not (place.is_file() and len(lines := place.read_text().splitlines()) == 2):
            await asyncio.sleep(0.05)
    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
