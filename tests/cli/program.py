"""Ways to run the command line in tests."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gradtoken.cli.app import app, main

PROGRAM = [sys.executable, "-c", "from gradtoken.cli import main; main()"]
"""The beginning of a command line that runs in a process of its own."""


def invoke(*arguments: object) -> Result:
    """The result of `gradtoken ARGUMENTS`; errors of the package are kept as its exception."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def stdout(*arguments: object) -> str:
    """The standard output of a command that succeeds; its error is raised."""
    result = invoke(*arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def json_lines(*arguments: object, code: int = 0) -> list[Any]:
    """What a command prints with --json: every line of its standard output must be JSON."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == code, result.output
    return [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]


def run_main(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of `main`, with every run of white space as one space."""
    code = exit_code(*arguments)
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), " ".join(captured.err.split())


def exit_code(*arguments: object) -> int:
    """The exit code of `main`, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gradtoken", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0
