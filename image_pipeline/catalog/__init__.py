"""The catalog: what the pipeline knows, in SQLite or Postgres, and the ledger of what is done."""
