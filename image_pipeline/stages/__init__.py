"""What is done to a batch, stage by stage, without Dagster: fetch, work, store, commit.

Every stage may be killed and run again: it asks the catalog what is missing, and commits only
what is already in the bucket.
"""
