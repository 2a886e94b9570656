"""Runs the migrations on the connection that the catalog hands over."""

from alembic import context

from image_pipeline.catalog.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
