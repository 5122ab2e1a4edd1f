"""`gradtoken serve` as a process."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gradtoken.app.limits import Limits
from gradtoken.app.server import serving
from gradtoken.cli.serve import serve
from tests.waiting import PATIENCE, be_patient_with_servers

be_patient_with_servers()

COMMAND = [sys.executable, "-c", "from gradtoken.cli import main; main()", "serve"]


@contextmanager
def process(*arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server and its address."""
    with tempfile.TemporaryFile("w+") as errors:
        started = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "COLUMNS": "200", **variables},
        )
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            found = re.search(r"serves \S+ at (http\S+)", line)
            errors.seek(0)
            assert found, line + errors.read()
            errors.seek(0)
            started.said = errors.read()
            yield started, found[1]
        finally:
            started.kill()
            started.wait()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(how: signal.Signals, tmp_path: Path) -> None:
    with process(TMPDIR=str(tmp_path)) as (started, url):
        assert url.startswith("http://127.0.0.1:")
        assert "warning" not in started.said
        assert httpx.get(url).status_code == 200
        assert len(list(tmp_path.glob("gradtoken-app-*"))) == 1
        started.send_signal(how)
        assert started.wait(timeout=PATIENCE) == 0
        assert "uploaded pictures are deleted" in started.stdout.read()
    assert list(tmp_path.glob("gradtoken-app-*")) == []


@dataclass
class Asked:
    """What a command asked of the app, and what it printed."""

    code: int
    options: dict[str, Any]
    errors: str


@pytest.fixture
def ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Asked]:
    """Run the command in this process, with an app that is stopped at once."""
    import gradtoken.app
    from gradtoken.cli import app as cli

    def run(*arguments: str, app: Any = None) -> Asked:
        options: dict[str, Any] = {}

        @contextmanager
        def stopped(_: Any, **given: Any) -> Iterator[str]:
            options.update(given)
            yield "http://somewhere"

        monkeypatch.setattr(gradtoken.app, "serving", app or stopped)
        monkeypatch.setattr("gradtoken.cli.serve._wait", lambda stop: None)
        monkeypatch.setattr(cli.problems, "_width", 300)
        monkeypatch.setattr(sys, "argv", ["gradtoken", "serve", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Asked(code, options, " ".join(capsys.readouterr().err.split()))

    return run


def test_the_login_comes_from_the_environment(
    ask: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask().options["auth"] is None
    monkeypatch.setenv("GRADTOKEN_AUTH", "ann:secret")
    assert ask().options["auth"] == "ann:secret"
    assert ask("--auth", "bob:secret").options["auth"] == "bob:secret"


def test_other_hosts_without_a_login_are_warned_of(ask: Callable[..., Asked]) -> None:
    asked = ask("--host", "0.0.0.0")
    assert asked.options["host"] == "0.0.0.0"
    assert asked.errors.count("warning: anybody who can reach this address") == 1
    assert "warning" not in ask("--host", "0.0.0.0", "--auth", "ann:secret").errors
    assert "warning" not in ask().errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--auth", "ann"], "error: the login is not USER:PASSWORD"),
        (["-m", "dmo"], "did you mean 'demo'"),
        (["--host", "203.0.113.7"], "error: cannot listen on 203.0.113.7"),
    ],
)
def test_errors_are_one_sentence(
    ask: Callable[..., Asked], arguments: list[str], words: str
) -> None:
    asked = ask(*arguments, app=serving)
    assert asked.code == 1
    assert words in asked.errors
    assert "Traceback" not in asked.errors
    assert asked.errors.startswith("error: ") or "warning: anybody" in asked.errors


@pytest.mark.parametrize(("limit", "expected"), [("3", 3), ("0", None)])
def test_the_rate_is_chosen(ask: Callable[..., Asked], limit: str, expected: int | None) -> None:
    """What the app does with it is in tests/app/test_rate.py."""
    asked = ask("--requests-per-minute", limit)
    assert asked.options["limits"] == Limits(requests_per_minute=expected)


def test_the_rate_is_the_limits_own_by_default() -> None:
    default = inspect.signature(serve).parameters["requests_per_minute"].default
    assert default == Limits().requests_per_minute
