"""Keeping a run in one file, and going on from it: `save`, `load`, `Checkpoints`."""
