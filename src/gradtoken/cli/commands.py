"""All sub-commands, one file each."""

from gradtoken.cli import check, coupling, demo, explain, listing

__all__ = ["check", "coupling", "demo", "explain", "listing"]
