"""The entry point of Alembic: runs the migrations on the URL that `core.db.migrate` passes."""

from __future__ import annotations

from alembic import context

from core.db.migrate import engine
from core.db.schema import metadata

with engine(context.config.attributes["url"]).connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=False)
    with context.begin_transaction():
        context.run_migrations()
