"""The command line. Heavy imports wait until a command needs them."""

from gradtoken.cli.app import main

__all__ = ["main"]
