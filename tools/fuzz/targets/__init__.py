"""One fuzz target per file; each defines TARGET."""
