"""The consoles for results and for errors, and how an error is printed."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from gradtoken.errors import one_line

console = Console()
"""Standard output: results."""

problems = Console(stderr=True)
"""Standard error: errors, warnings and progress."""


def complain(text: str) -> None:
    """Print an error as one line on standard error."""
    problems.print(f"[bold red]error:[/] {escape(one_line(text))}", soft_wrap=True)
