"""All sub-commands, one file each."""

from gradtoken.cli import coupling, demo, explain, listing

__all__ = ["coupling", "demo", "explain", "listing"]
