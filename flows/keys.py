"""The API key of an organisation, from where its settings say that it is."""

import os
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from connectors.velma import ApiKey
from flows.settings import ENV_FILE, Settings
from moderation.errors import AccessDeniedError, ConfigurationError, UnreachableError

NO_KEY = (
    "no API key: set SOUNDCHECK_API_KEY, or api_key_file (SOUNDCHECK_API_KEY_FILE) to a file that holds it, "
    "api_key_env to the name of another variable, or api_key_block to the name of a Prefect Secret block"
)


async def load_key(settings: Settings) -> ApiKey:
    """The API key from where the settings say it is. Raises AccessDeniedError without one."""
    if settings.api_key is not None:
        return ApiKey(settings.api_key.get_secret_value())
    if settings.api_key_file is not None:
        return ApiKey(_read_key(settings.api_key_file))
    if settings.api_key_block is not None:
        return await _key_of_block(settings.api_key_block)
    if settings.api_key_env is not None:
        return ApiKey(_key_of_variable(settings.api_key_env))
    raise AccessDeniedError(NO_KEY)


def _read_key(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigurationError(f"the API key file {path} cannot be read: {why}") from None


def _key_of_variable(name: str) -> str:
    key = os.environ.get(name) or dotenv_values(ENV_FILE).get(name)
    if not key:
        raise AccessDeniedError(f"the variable {name}, which api_key_env names, is neither in the environment nor in {ENV_FILE}")
    return key.strip()


async def _key_of_block(name: str) -> ApiKey:
    from prefect.blocks.system import Secret  # noqa: PLC0415 - Prefect takes seconds to import, and few keys live there

    try:
        block: Any = await Secret.aload(name)
    except ValueError:
        raise ConfigurationError(f"Prefect has no Secret block named {name!r}: create it, or correct api_key_block") from None
    except Exception as error:  # noqa: BLE001 - whatever Prefect's client raises when its server is not there
        raise UnreachableError(f"Prefect did not give its Secret block {name!r} ({type(error).__name__}): check PREFECT_API_URL") from None
    return ApiKey(str(block.get()))
