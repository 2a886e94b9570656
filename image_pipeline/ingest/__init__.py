"""From objects in the bucket to batches in the ledger; decisions pure, I/O passed in."""
