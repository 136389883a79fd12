"""The way to people: mail, chat or pager by addresses of apprise, which hold tokens and are never shown."""

import asyncio
import logging

from moderation.errors import ConfigurationError

TITLE = "soundcheck"


class Person:
    """Somebody at an address of apprise. Making one raises ConfigurationError for an address that is none."""

    def __init__(self, url: str) -> None:
        import apprise  # noqa: PLC0415 - 0.3 s, for who has people to tell

        logging.getLogger("apprise").disabled = True  # it writes addresses into its log, and the next one paths
        logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
        found = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if found is None:
            raise ConfigurationError("notify_people: give addresses of apprise, such as mailto://user:password@host or slack://...")
        self._way = found

    async def tell(self, text: str, patience_s: float) -> str | None:
        """Say something; what went wrong, if anything did, in words that hold nothing of the address."""
        try:
            async with asyncio.timeout(patience_s):
                told = await self._way.async_notify(body=text, title=TITLE)
        except Exception as error:  # noqa: BLE001 - whatever the way of one of two hundred services raises, no run ends for it
            return type(error).__name__
        return None if told else "not taken"
