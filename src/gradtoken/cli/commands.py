"""All sub-commands, one file each."""

from gradtoken.cli import bench, check, compare, coupling, demo, explain, listing, serve

__all__ = ["bench", "check", "compare", "coupling", "demo", "explain", "listing", "serve"]
