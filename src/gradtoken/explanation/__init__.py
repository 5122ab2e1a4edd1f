"""The result of an explanation: maps, figures of them, and files."""
