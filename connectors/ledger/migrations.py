"""The ledger's schema from any earlier version to today's, in one transaction. Versions only grow, and no money is ever recomputed."""

from collections.abc import Awaitable, Callable

from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ledger import schema
from connectors.ledger.gates import keep_gate
from moderation.errors import ConfigurationError
from moderation.gate import Gate


async def make_schema(connection: AsyncConnection) -> None:
    """Today's tables, made or brought up from an older version. Raises ConfigurationError for a ledger of a newer soundcheck."""
    await connection.run_sync(schema.schema_version.create, checkfirst=True)
    version = await connection.scalar(select(schema.schema_version.c.version))
    if version is None:
        await connection.run_sync(schema.metadata.create_all)
        await connection.execute(insert(schema.schema_version).values(version=schema.SCHEMA_VERSION))
        return
    if version > schema.SCHEMA_VERSION:
        raise ConfigurationError(
            f"the ledger has schema version {version}, this soundcheck knows {schema.SCHEMA_VERSION}: use the soundcheck that wrote it"
        )
    for step in range(version, schema.SCHEMA_VERSION):
        await _STEPS[step](connection)
    if version < schema.SCHEMA_VERSION:
        await connection.run_sync(schema.metadata.create_all)
        await connection.execute(update(schema.schema_version).values(version=schema.SCHEMA_VERSION))


async def _gates_by_rule(connection: AsyncConnection) -> None:
    """Version 2: a gate is what the rules of moderation make of it, its cap stands; sessions know if the service has admitted them."""
    old = (await connection.execute(text("SELECT org, endpoint, ceiling, paused FROM gates"))).all()
    caps = await connection.execute(text("SELECT org, endpoint, cap_ms FROM budgets ORDER BY month"))
    newest = {(org, endpoint): cap_ms for org, endpoint, cap_ms in caps}
    await connection.execute(text("DROP TABLE gates"))
    await connection.run_sync(schema.gates.create)
    for org, endpoint, ceiling, paused in old:
        await keep_gate(connection, org, endpoint, Gate(ceiling, newest.get((org, endpoint)), paused=bool(paused)))
    await connection.execute(text("ALTER TABLE budgets DROP COLUMN cap_ms"))
    await connection.execute(text("ALTER TABLE sessions ADD COLUMN admitted BOOLEAN DEFAULT false NOT NULL"))


async def _closed_connections(connection: AsyncConnection) -> None:
    """Version 3: sessions know if their connection has closed."""
    await connection.execute(text("ALTER TABLE sessions ADD COLUMN closed BOOLEAN DEFAULT false NOT NULL"))


_STEPS: dict[int, Callable[[AsyncConnection], Awaitable[None]]] = {1: _gates_by_rule, 2: _closed_connections}
"""By the version that each starts from."""
