"""Velma over WebSocket: bytes in, a SessionResult out (design.md section 4)."""

from connectors.velma.client import VelmaClient
from connectors.velma.key import ApiKey
from connectors.velma.settings import VelmaSettings, check_host

__all__ = ["ApiKey", "VelmaClient", "VelmaSettings", "check_host"]
