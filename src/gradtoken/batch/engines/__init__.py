"""The engines of a run: one process, or Ray."""
