"""The ledger: the database that owns connection slots and audio-hours (design.md section 5)."""

from connectors.ledger.database import host_boot_ms
from connectors.ledger.leases import LEASE_MS
from connectors.ledger.ledger import Ledger

__all__ = ["LEASE_MS", "Ledger", "host_boot_ms"]
