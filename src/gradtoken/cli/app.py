"""The `gradtoken` command: its sub-commands, and what its errors and exit codes are."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from gradtoken.cli import batch, bench, check, compare, coupling, demo, explain, listing, serve
from gradtoken.cli.console import complain, console
from gradtoken.cli.signature import as_command
from gradtoken.errors import GradTokenError

_INTERRUPTED = 130

EPILOG = """
Exit codes: 0 all is done; 1 something could not be read or done, and a sentence says what; 2 the
command was not understood; 130 interrupted. `--install-completion` teaches your shell the names.
"""


class Commands(TyperGroup):
    """The sub-commands; an interruption ends them with its own exit code and no traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _exit_interrupted()


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
app.command("bench", epilog=bench.EXAMPLES)(as_command(bench.run))
app.command("check", epilog=check.EXAMPLES)(as_command(check.run))
app.command("compare", epilog=compare.EXAMPLES)(as_command(compare.run))
app.command("coupling", epilog=coupling.EXAMPLES)(as_command(coupling.run))
app.command("demo", epilog=demo.EXAMPLES)(as_command(demo.run))
app.command("explain", epilog=explain.EXAMPLES)(as_command(explain.run))
app.command("models")(as_command(listing.list_models))
app.command("methods")(as_command(listing.list_methods))
app.command("serve", epilog=serve.EXAMPLES)(as_command(serve.run))
app.add_typer(batch.group, name="batch", help=batch.HELP)


def main() -> None:
    """Run the command line; a known error is one sentence on stderr and exit code 1."""
    try:
        app()
    except GradTokenError as error:
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        _exit_interrupted()


def _exit_interrupted() -> NoReturn:
    complain("interrupted; what was saved before is complete.")
    sys.exit(_INTERRUPTED)


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    """Options of the command itself."""
    if version:
        from gradtoken import __version__

        console.print(f"gradtoken {__version__}")
        raise typer.Exit
