"""Alembic runs this file to bring one open connection to a revision; see `migrate`."""

from alembic import context

from broker.adapters.registry.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite changes a column by copying its table.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
