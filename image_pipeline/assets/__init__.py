"""The assets: thin nouns that call a stage and say in the UI what it did."""
