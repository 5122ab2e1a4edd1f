"""Watching one forward of an unmodified module: its attention calls, blocks and norms."""
