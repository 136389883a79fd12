"""The ledger: the database that owns connection slots and audio-hours (design.md section 5)."""

from connectors.ledger.leases import LEASE_MS
from connectors.ledger.ledger import Ledger
from connectors.ledger.rebuilding import aside, rebuilding
from connectors.ledger.sqlite import host_boot_ms

__all__ = ["LEASE_MS", "Ledger", "aside", "host_boot_ms", "rebuilding"]
