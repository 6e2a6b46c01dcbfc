"""Files: written entirely or not at all, read with suspicion."""
