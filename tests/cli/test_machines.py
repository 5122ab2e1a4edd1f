"""The command line for machines: JSON, silence, exit codes, no colours, completion."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import gradtoken
from gradtoken.cli import completion
from gradtoken.cli.app import app, main
from gradtoken.cli.output import Output, finite
from gradtoken.datasets import Scenes
from tests.waiting import PATIENCE, until

PROGRAM = [sys.executable, "-c", "from gradtoken.cli import main; main()"]


@pytest.fixture(autouse=True)
def commands() -> None:
    from gradtoken.cli import commands  # noqa: F401


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Scenes("test", objects=2)[0].image.save(path)
    return path


def lines(*arguments: object, code: int = 0) -> list[Any]:
    """What a command prints with --json: every line of its standard output must be JSON."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == code, result.output
    return [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]


def test_explain_prints_a_line_per_picture(scene: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    out = tmp_path / "out"
    found = lines("explain", scene, bad, "-t", "rocket", "--out", out, code=1)
    assert [line["picture"] for line in found] == [str(scene), str(bad)]
    manifest = json.loads((out / "scene" / "manifest.json").read_text())
    assert found[0]["targets"] == manifest["targets"]
    assert found[0]["folder"] == str(out / "scene")
    assert "is not a picture" in found[1]["error"]


def test_coupling_compare_and_demo(scene: Path, tmp_path: Path) -> None:
    methods = ("--method", "gradtoken", "--method", "rollout")
    (found,) = lines("coupling", scene, *methods)
    assert found["coupling"]["rollout"] == pytest.approx(1)
    assert found["pictures"] == 1
    sheet = tmp_path / "sheet.png"
    (compared,) = lines("compare", scene, *methods, "--out", sheet)
    assert compared["coupling"] == found["coupling"]
    assert compared["file"] == str(sheet)
    assert len(compared["targets"]) == 2
    (demo,) = lines("demo", "--objects", 2, "--out", tmp_path / "demo")
    assert len(demo["figures"]["gradtoken"]["share"]) == len(demo["targets"]) == 2
    assert Path(demo["file"]).exists()


def test_methods_that_refuse_are_named(scene: Path) -> None:
    swin = ("coupling", scene, "-m", "timm/swin_tiny_patch4_window7_224", "--random-weights")
    (found,) = lines(*swin, "--method", "gradtoken", "--method", "gae")
    assert list(found["coupling"]) == ["gradtoken"]
    assert "gae needs the attention between all" in found["refused"]["gae"]
    result = CliRunner().invoke(app, [*map(str, swin), "--method", "gae"])
    assert "none of the methods works on timm/swin" in str(result.exception)


def test_json_is_ascii_whatever_names_hold(capsys: pytest.CaptureFixture[str]) -> None:
    name = "odd \udcff … ä"
    Output(as_json=True).document({"name": name})
    told = capsys.readouterr().out
    assert told.isascii()
    assert json.loads(told) == {"name": name}


def test_one_target_has_no_coupling(scene: Path, tmp_path: Path) -> None:
    arguments = ("--method", "rollout", "-t", "rocket", "--out", tmp_path / "sheet.png")
    (found,) = lines("compare", scene, *arguments)
    assert found["coupling"] == {"rollout": None}


def test_models_methods_and_check() -> None:
    (names,) = lines("models", "dinov2")
    assert "timm/vit_small_patch14_dinov2" in names
    (methods,) = lines("methods")
    assert [method["name"] for method in methods] == list(gradtoken.methods())
    assert methods[0]["options"]["beta"] == 0.5
    assert methods[0]["presets"]["faithful"]["depth"] == 0
    (check,) = lines("check", "demo")
    assert check["works"] is True
    assert check["grid"] == [14, 14]


def test_bench(tmp_path: Path) -> None:
    out = tmp_path / "bench"
    question = ("--methods", "gradtoken,rollout", "--metrics", "coupling", "--limit", 2)
    (found,) = lines("bench", *question, "--out", out)
    rows = {(row["method"], row["metric"]): row for row in found["summary"]}
    assert rows["rollout", "coupling"]["mean"] == pytest.approx(1)
    assert found["pictures"] == 2
    assert found["differences"][0]["method"] == "rollout"
    assert all(Path(file).exists() for file in found["files"])


@pytest.mark.parametrize("command", ["explain", "coupling", "compare", "check", "demo", "bench"])
def test_every_long_command_can_be_quiet_and_speak_json(command: str) -> None:
    from typer.main import get_command

    options = {name for p in get_command(app).commands[command].params for name in p.opts}
    assert {"--quiet", "-q", "--json"} <= options


def test_quiet_prints_nothing_but_errors(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    arguments = ["explain", str(tmp_path), "--out", str(tmp_path / "out"), "--quiet"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "is not a picture" in result.stderr
    result = CliRunner().invoke(app, ["check", "demo", "-q"])
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.slow
def test_no_colours_where_nobody_looks(scene: Path, tmp_path: Path) -> None:
    """Piped output has no escape codes."""
    plain = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    for question in (["methods"], ["explain", "--help"], ["explain", str(tmp_path / "none.png")]):
        done = subprocess.run(
            [*PROGRAM, *question],
            capture_output=True,
            cwd=tmp_path,
            env={**plain, "TERM": "xterm-256color"},
            check=False,
        )
        assert b"\x1b[" not in done.stdout + done.stderr, question


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("no_color", [True, False])
def test_colours_on_a_terminal_unless_refused(tmp_path: Path, no_color: bool) -> None:
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
    told = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        told += part
    assert process.wait() == 1
    assert b"no method is named" in told
    assert (b"\x1b[31" in told or b"\x1b[1;31" in told) is not no_color


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_bar_on_the_terminal_does_not_swallow_the_result(scene: Path, tmp_path: Path) -> None:
    """Somebody looks at standard error, and a program reads standard output."""
    import pty

    ours, theirs = pty.openpty()
    question = ["explain", str(scene), "--json", "--out", str(tmp_path / "out")]
    process = subprocess.Popen([*PROGRAM, *question], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    told, _ = process.communicate(timeout=PATIENCE)
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert json.loads(told)["picture"] == str(scene)
    assert b"explaining" in shown
    assert b"scene.png" not in shown


def test_forced_colours_do_not_force_a_bar(scene: Path, tmp_path: Path) -> None:
    """As notebooks set it for every program that they start."""
    done = subprocess.run(
        [*PROGRAM, "explain", str(scene), "--json", "--out", str(tmp_path / "out")],
        capture_output=True,
        env={**os.environ, "FORCE_COLOR": "1"},
        check=True,
    )
    assert json.loads(done.stdout)["picture"] == str(scene)
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["models", "resnext"], 1),
        (["explain", "--no-such-option"], 2),
        (["nothing"], 2),
    ],
)
def test_exit_codes(arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gradtoken", *arguments])
    ended = 0
    try:
        main()
    except SystemExit as stop:
        ended = int(stop.code or 0)
    assert ended == code


def test_a_process_ends_with_its_exit_code(tmp_path: Path) -> None:
    done = subprocess.run([*PROGRAM, "models", "resnext"], capture_output=True, check=False)
    assert done.returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_an_interruption_is_130(scene: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for index in range(300):
        (many / f"{index}.png").write_bytes(scene.read_bytes())
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*PROGRAM, "explain", str(many), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def explained() -> list[Path]:
        assert process.poll() is None, "it ended before it could be interrupted"
        return list(out.glob("*/manifest.json"))

    until(explained)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted; what was saved before is complete" in told
    assert "Traceback" not in told
    assert all((folder / "manifest.json").exists() for folder in out.glob("[0-9]*"))


def test_numbers_that_json_does_not_have_become_null() -> None:
    assert finite({"a": [float("nan"), 1.0, (float("inf"),)], 3: None}) == {
        "a": [None, 1.0, [None]],
        "3": None,
    }


def test_the_shell_completes_names() -> None:
    assert set(completion.methods("")) == set(gradtoken.methods())
    assert completion.methods("grad-r") == ["grad-rollout"]
    assert completion.models("d") == ["demo"]
    assert "timm/vit_base_patch16_224" in completion.models("timm/vit_base")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'gradtoken'; {PROGRAM[-1]}"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_GRADTOKEN_COMPLETE": "complete_bash",
            "COMP_WORDS": "gradtoken explain --method grad-s",
            "COMP_CWORD": "3",
        },
        check=False,
    )
    assert "grad-sam" in done.stdout
