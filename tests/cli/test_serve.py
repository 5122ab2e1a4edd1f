"""`gradtoken serve` as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
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
from gradtoken.cli import serve
from gradtoken.cli.serve import ServeOptions
from tests.cli.program import PROGRAM, exit_code
from tests.waiting import PATIENCE, be_patient_with_servers

be_patient_with_servers()


@dataclass
class Server:
    """A server in its own process, its address, and what it printed as errors at its start."""

    process: subprocess.Popen[str]
    url: str
    errors: str


@contextmanager
def server(*arguments: str, **variables: str) -> Iterator[Server]:
    """Run `gradtoken serve` and stop it."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*PROGRAM, "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "COLUMNS": "200", **variables},
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.search(r"serves \S+ at (http\S+)", line)
            errors.seek(0)
            printed = errors.read()
            assert address, line + printed
            yield Server(process, address[1], printed)
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_until_it_is_stopped(how: signal.Signals, tmp_path: Path) -> None:
    with server(TMPDIR=str(tmp_path)) as running:
        assert running.url.startswith("http://127.0.0.1:")
        assert "warning" not in running.errors
        assert httpx.get(running.url).status_code == 200
        assert len(list(tmp_path.glob("gradtoken-app-*"))) == 1
        running.process.send_signal(how)
        assert running.process.wait(timeout=PATIENCE) == 0
        assert "uploaded images are deleted" in running.process.stdout.read()
    assert list(tmp_path.glob("gradtoken-app-*")) == []


@dataclass
class Outcome:
    """How a command ended, which options it passed to the app, and the errors it printed."""

    code: int
    options: dict[str, Any]
    errors: str


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run the command in this process, with an app that is stopped at once."""
    import gradtoken.app

    def run_serve(*arguments: str, app: Any = None) -> Outcome:
        options: dict[str, Any] = {}

        @contextmanager
        def stopped(_: Any, **passed: Any) -> Iterator[str]:
            options.update(passed)
            yield "http://somewhere"

        monkeypatch.setattr(gradtoken.app, "serving", app or stopped)
        monkeypatch.setattr(serve, "wait_for", lambda stop: None)
        code = exit_code("serve", *arguments)
        return Outcome(code, options, " ".join(capsys.readouterr().err.split()))

    return run_serve


def test_serve_reads_the_login_from_the_environment(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run().options["auth"] is None
    monkeypatch.setenv("GRADTOKEN_AUTH", "ann:secret")
    assert run().options["auth"] == "ann:secret"
    assert run("--auth", "bob:secret").options["auth"] == "bob:secret"


def test_serve_warns_of_other_hosts_without_a_login(run: Callable[..., Outcome]) -> None:
    outcome = run("--host", "0.0.0.0")
    assert outcome.options["host"] == "0.0.0.0"
    assert outcome.errors.count("warning: anybody who can reach this address") == 1
    assert "warning" not in run("--host", "0.0.0.0", "--auth", "ann:secret").errors
    assert "warning" not in run().errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--auth", "ann"], "error: the login is not USER:PASSWORD"),
        (["-m", "dmo"], "did you mean 'demo'"),
        (["--host", "203.0.113.7"], "error: cannot listen on 203.0.113.7"),
    ],
)
def test_serve_prints_an_error_as_one_sentence(
    run: Callable[..., Outcome], arguments: list[str], words: str
) -> None:
    outcome = run(*arguments, app=serving)
    assert outcome.code == 1
    assert words in outcome.errors
    assert "Traceback" not in outcome.errors
    assert outcome.errors.startswith("error: ") or "warning: anybody" in outcome.errors


@pytest.mark.parametrize(("limit", "expected"), [("3", 3), ("0", None)])
def test_serve_limits_requests_per_minute(
    run: Callable[..., Outcome], limit: str, expected: int | None
) -> None:
    """What the app does with it is in tests/app/test_rate.py."""
    outcome = run("--requests-per-minute", limit)
    assert outcome.options["limits"] == Limits(requests_per_minute=expected)


def test_default_rate_is_that_of_the_limits() -> None:
    assert ServeOptions().requests_per_minute == Limits().requests_per_minute
