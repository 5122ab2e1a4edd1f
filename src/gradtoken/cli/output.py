"""What a command prints: words for people, JSON for machines, or nothing but errors."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gradtoken.cli import app

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")


@dataclass(frozen=True)
class Output:
    """Where a command's results go.

    Args:
        as_json: standard output holds JSON lines and nothing else.
        quiet: no words and no progress; errors are still told.
    """

    as_json: bool = False
    quiet: bool = False

    def say(self, words: Any, **options: Any) -> None:
        """Print a table or a sentence for people."""
        if not (self.as_json or self.quiet):
            app.console.print(words, **options)

    def document(self, data: Any) -> None:
        """Print one line of JSON for machines, in ASCII; what is no number becomes null."""
        if self.as_json:
            sys.stdout.write(json.dumps(finite(data), allow_nan=False) + "\n")
            sys.stdout.flush()

    @property
    def shows_progress(self) -> bool:
        """Whether someone looks who wants to see it; it goes to standard error."""
        if self.quiet or (self.as_json and sys.stdout.isatty()):
            return False
        return app.problems.file.isatty()

    def progress(self, *columns: Any) -> Progress:
        """A bar on standard error, if somebody looks, that leaves standard output alone."""
        from rich.progress import Progress

        return Progress(
            *(columns or Progress.get_default_columns()),
            console=app.problems,
            disable=not self.shows_progress,
            transient=True,
            redirect_stdout=False,
        )

    def track(self, items: Sequence[Item], words: str) -> Iterator[Item]:
        """Go through the items, with a bar on standard error if somebody looks."""
        with self.progress() as bar:
            yield from bar.track(items, description=words)


def finite(data: Any) -> Any:
    """Plain data with None in place of NaN and infinite numbers, which JSON does not have."""
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data
