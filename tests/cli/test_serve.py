"""`gradtoken serve` as a process."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gradtoken.app.limits import Limits
from gradtoken.cli.serve import serve

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


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(how: signal.Signals, tmp_path: Path) -> None:
    with process(TMPDIR=str(tmp_path)) as (started, url):
        assert url.startswith("http://127.0.0.1:")
        assert "warning" not in started.said
        assert httpx.get(url).status_code == 200
        assert len(list(tmp_path.glob("gradtoken-app-*"))) == 1
        started.send_signal(how)
        assert started.wait(timeout=20) == 0
        assert "uploaded pictures are deleted" in started.stdout.read()
    assert list(tmp_path.glob("gradtoken-app-*")) == []


def test_the_login_comes_from_the_environment() -> None:
    with process(GRADTOKEN_AUTH="ann:secret") as (_, url):
        assert httpx.get(f"{url}config").status_code == 401


def test_other_hosts_without_a_login_are_warned_of() -> None:
    with process("--host", "0.0.0.0") as (started, _):
        assert started.said.count("warning: anybody who can reach this address") == 1
    with process("--host", "0.0.0.0", "--auth", "ann:secret") as (started, _):
        assert "warning" not in started.said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--auth", "ann"], "error: the login is not USER:PASSWORD"),
        (["-m", "dmo"], "did you mean 'demo'"),
        (["--host", "203.0.113.7"], "error: cannot listen on 203.0.113.7"),
    ],
)
def test_errors_are_one_sentence(arguments: list[str], words: str) -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - begun < 50


@pytest.mark.parametrize(("limit", "refused"), [("3", 7), ("0", 0)])
def test_the_rate_is_chosen(limit: str, refused: int) -> None:
    with process("--requests-per-minute", limit) as (_, url):
        visitor = {"X-Forwarded-For": "10.0.0.1"}
        answers = [httpx.post(f"{url}login", headers=visitor).status_code for _ in range(10)]
    assert answers.count(429) == refused
    assert 429 not in answers[: 10 - refused]


def test_the_rate_is_the_limits_own_by_default() -> None:
    default = inspect.signature(serve).parameters["requests_per_minute"].default
    assert default == Limits().requests_per_minute
