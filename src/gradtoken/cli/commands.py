"""All sub-commands, one file each."""

from gradtoken.cli import batch, bench, check, compare, coupling, demo, explain, listing, serve

__all__ = ["batch", "bench", "check", "compare", "coupling", "demo", "explain", "listing", "serve"]
