"""Pure decisions over fingerprints: who is a duplicate of whom, and who stands for a group."""
