"""The tables of the ledger (design.md section 5).

All `_ms` are milliseconds of audio, but lease_until, since_ms and seen_ms milliseconds of the ledger's clock.
"""

from datetime import UTC, datetime

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, Dialect, Index, Integer, MetaData, String, Table, TypeDecorator, false

SCHEMA_VERSION = 3


class Instant(TypeDecorator[datetime]):
    """An instant in UTC. SQLite forgets the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """To UTC on the way in."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """In UTC on the way out."""
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", String, primary_key=True),
    Column("lake", String, nullable=False),
    Column("org", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("object_id", String, nullable=False),
    Column("params_hash", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("worker", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("month", String, nullable=False),
    Column("reserved_ms", BigInteger, nullable=False),
    Column("sent_ms", BigInteger),
    Column("booked_ms", BigInteger),
    Column("state", String, nullable=False),
    Column("package", String),
    Column("started_at", Instant, nullable=False),
    Column("lease_until", BigInteger),
    Column("admitted", Boolean, nullable=False, server_default=false()),
    Column("closed", Boolean, nullable=False, server_default=false()),
    Column("outcome", String),
    Column("scope", String),
    Column("close_code", Integer),
    Column("error_text", String),
    Index("sessions_of_object", "lake", "object_id", "endpoint", "params_hash"),
    # state before endpoint: the organisation's gate counts the live sessions of all endpoints
    Index("sessions_at_gate", "org", "state", "endpoint"),
    Index("sessions_of_package", "package", "lake", "run_id"),
    Index("sessions_leased", "lease_until"),
)

gates = Table(
    "gates",
    metadata,
    Column("org", String, primary_key=True),
    Column("endpoint", String, primary_key=True),
    # moderation.gate.Gate as JSON: its rules are the only ones who read and write what is in it
    Column("gate", String, nullable=False),
)

waiting = Table(
    "waiting",
    metadata,
    Column("org", String, primary_key=True),
    Column("endpoint", String, primary_key=True),
    Column("worker", String, primary_key=True),
    Column("priority", Integer, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
)

budgets = Table(
    "budgets",
    metadata,
    Column("org", String, primary_key=True),
    Column("endpoint", String, primary_key=True),
    Column("month", String, primary_key=True),
    Column("settled_ms", BigInteger, nullable=False, server_default="0"),
    Column("at_risk_ms", BigInteger, nullable=False, server_default="0"),
    Column("reserved_ms", BigInteger, nullable=False, server_default="0"),
)

adjustments = Table(
    "adjustments",
    metadata,
    Column("adjustment_id", String, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("org", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("month", String, nullable=False),
    Column("settled_ms", BigInteger, nullable=False),
    Column("at_risk_ms", BigInteger, nullable=False),
    Column("who", String, nullable=False),
    Column("reason", String, nullable=False),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("object_key_id", String, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("receipt", String, nullable=False),
)

notices = Table(
    "notices",
    metadata,
    Column("org", String, primary_key=True),
    Column("cause", String, primary_key=True),
    Column("at", Instant, nullable=False),
)

packages = Table(
    "packages",
    metadata,
    Column("package", String, primary_key=True),
    Column("lake", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("org", String, nullable=False),
    Column("scan_date", Date, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("published_at", Instant),
    Index("packages_of_run", "run_id"),
    Index("packages_of_lake", "lake", "published_at"),
)
