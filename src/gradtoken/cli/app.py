"""The `gradtoken` command and how its errors are shown."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from gradtoken.errors import GradTokenError, one_line

_INTERRUPTED = 130
console = Console()
problems = Console(stderr=True)

EPILOG = """
Exit codes: 0 all is done; 1 something could not be read or done, and a sentence says what; 2 the
command was not understood; 130 interrupted. `--install-completion` teaches your shell the names.
"""


class Commands(TyperGroup):
    """The commands; interrupting one is no failure of the program."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _interrupted()


app = typer.Typer(
    name="gradtoken",
    cls=Commands,
    help="Why this class, and not that one? Class-by-class explanations of Vision Transformers.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; a known error is one sentence on stderr and exit code 1."""
    from gradtoken.cli import commands  # noqa: F401  (registers the commands)

    try:
        app()
    except GradTokenError as error:
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        _interrupted()


def _interrupted() -> NoReturn:
    complain("interrupted; what was saved before is complete.")
    sys.exit(_INTERRUPTED)


def complain(text: str) -> None:
    """Print an error as one line on stderr."""
    problems.print(f"[bold red]error:[/] {escape(one_line(text))}", soft_wrap=True)


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    """Options of the command itself."""
    if version:
        from gradtoken import __version__

        console.print(f"gradtoken {__version__}")
        raise typer.Exit
