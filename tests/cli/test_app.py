"""The command as a whole: help, exit codes, errors, interruption, colours, start-up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import gradtoken
from gradtoken.cli.app import app
from tests.cli.program import PROGRAM, exit_code, run_main
from tests.waiting import PATIENCE, until


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "none.png"], "none.png does not exist"),
        (["explain", "*.nothing"], "no file matches"),
        (["explain", "{scene}", "-t", "rockt"], "did you mean 'rocket'"),
        (["explain", "{scene}", "-t", "4242"], "out of range"),
        (["explain", "{scene}", "--top-k", "0"], "top_k is 0"),
        (["explain", "{scene}", "-m", "dmo"], "did you mean 'demo'"),
        (["explain", "{scene}", "--method", "rolout"], "did you mean 'rollout'"),
        (["explain", "{scene}", "-o", "beta"], "is not name=value"),
        (["explain", "{scene}", "-o", "beta=-1"], "beta is -1"),
        (["explain", "{scene}", "--device", "warp"], "device 'warp' cannot be used"),
        (["explain", "{scene}", "--dtype", "int4"], "dtype 'int4' cannot be used"),
        (["explain", "{scene}", "--out", "{scene}/x"], "cannot write to"),
        (["explain", ""], "an empty name is no image"),
        (["coupling", "{scene}", "-t", "rocket"], "--target twice"),
        (["coupling", "{scene}", "-t", "rocket", "-t", "ROCKET"], "--target twice"),
        (["models", "resnext"], "no model matches 'resnext'"),
    ],
)
def test_main_prints_an_error_as_one_sentence(
    capsys: pytest.CaptureFixture[str],
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [argument.replace("{scene}", str(scene)) for argument in arguments]
    code, _, err = run_main(capsys, *filled)
    assert code == 1
    assert words in err
    assert "Traceback" not in err
    assert err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["models", "resnext"], 1),
        (["explain", "--no-such-option"], 2),
        (["nothing"], 2),
    ],
)
def test_main_exit_codes(arguments: list[str], code: int) -> None:
    assert exit_code(*arguments) == code


def test_process_ends_with_the_exit_code_of_an_error() -> None:
    done = subprocess.run([*PROGRAM, "models", "resnext"], capture_output=True, check=False)
    assert done.returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_interruption_exits_with_130(scene: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(300):
        (images / f"{index}.png").write_bytes(scene.read_bytes())
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*PROGRAM, "explain", str(images), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def explained() -> list[Path]:
        assert process.poll() is None, "it ended before it could be interrupted"
        return list(out.glob("*/manifest.json"))

    until(explained)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted; what was saved before is complete" in errors
    assert "Traceback" not in errors
    assert all((folder / "manifest.json").exists() for folder in out.glob("[0-9]*"))


def test_help_has_examples_and_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_main(capsys, "explain", "--help")
    assert code == 0
    assert "gradtoken explain photo.jpg" in out
    code, out, _ = run_main(capsys, "--version")
    assert out == f"gradtoken {gradtoken.__version__}"


def test_start_up_does_not_import_torch() -> None:
    script = (
        "import sys, gradtoken, gradtoken.cli.app; "
        "sys.exit(bool({'torch', 'matplotlib', 'gradio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_every_command_that_loads_a_model_has_activation() -> None:
    group: Any = typer.main.get_command(app)
    commands = {
        **group.commands,
        **{f"batch {name}": c for name, c in group.commands["batch"].commands.items()},
    }
    loading = {name for name, command in commands.items() if "--device" in options_of(command)}
    assert loading == {"explain", "compare", "coupling", "bench", "check", "serve", "batch run"}
    assert all("--activation" in options_of(commands[name]) for name in loading)


@pytest.mark.parametrize("command", ["explain", "coupling", "compare", "check", "demo", "bench"])
def test_long_command_has_quiet_and_json(command: str) -> None:
    group: Any = typer.main.get_command(app)
    assert {"--quiet", "-q", "--json"} <= options_of(group.commands[command])


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


@pytest.mark.slow
def test_piped_output_has_no_escape_codes(tmp_path: Path) -> None:
    plain = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    missing = str(tmp_path / "none.png")
    for arguments in (["methods"], ["explain", "--help"], ["explain", missing]):
        done = subprocess.run(
            [*PROGRAM, *arguments],
            capture_output=True,
            cwd=tmp_path,
            env={**plain, "TERM": "xterm-256color"},
            check=False,
        )
        assert b"\x1b[" not in done.stdout + done.stderr, arguments


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("no_color", [True, False])
def test_terminal_output_has_colours_unless_no_color(tmp_path: Path, no_color: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    if no_color:
        environment["NO_COLOR"] = "1"
    process = subprocess.Popen(
        [*PROGRAM, "explain", str(tmp_path / "none.png"), "--method", "nothing"],
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    printed = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        printed += part
    assert process.wait() == 1
    assert b"no method is named" in printed
    assert (b"\x1b[31" in printed or b"\x1b[1;31" in printed) is not no_color
