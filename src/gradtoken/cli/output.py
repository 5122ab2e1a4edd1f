"""What a command prints: words for people, JSON for programs, or nothing but errors."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gradtoken.cli import options as shared
from gradtoken.cli.console import console, problems

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")


@dataclass(frozen=True)
class Output:
    """Where a command's results go, as its options say.

    Args:
        as_json: standard output holds JSON lines and nothing else.
        quiet: no words and no progress; errors are still printed.
    """

    as_json: shared.Json = False
    quiet: shared.Quiet = False

    def say(self, words: Any, **options: Any) -> None:
        """Print a table or a sentence for people."""
        if not (self.as_json or self.quiet):
            console.print(words, **options)

    def document(self, data: Any) -> None:
        """Print one line of JSON for programs, in ASCII; NaN and infinity become null."""
        if self.as_json:
            sys.stdout.write(json.dumps(finite(data), allow_nan=False) + "\n")
            sys.stdout.flush()

    @property
    def shows_progress(self) -> bool:
        """Whether standard error is a terminal, and progress does not disturb the results."""
        if self.quiet or (self.as_json and sys.stdout.isatty()):
            return False
        return problems.file.isatty()

    def progress(self, *columns: Any) -> Progress:
        """A bar on standard error, if it is shown, that leaves standard output alone."""
        from rich.progress import Progress

        return Progress(
            *(columns or Progress.get_default_columns()),
            console=problems,
            disable=not self.shows_progress,
            transient=True,
            redirect_stdout=False,
        )

    def track(self, items: Sequence[Item], words: str) -> Iterator[Item]:
        """Iterate over the items, with a bar on standard error if progress is shown."""
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
