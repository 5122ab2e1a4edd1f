"""Every code block of the documentation runs, or, for commands, is understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from gradtoken.cli.app import app
from tests.docs.pages import MARKS, PAGES, ROOT, blocks, run_python, write_files, write_maps

WITH_PYTHON = [page for page in PAGES if any(b.kind == "python" for b in blocks(page))]
KINDS = {"python", "bash", "toml", "text", "nginx"}
OTHER_PROGRAMS = {"pip", "pytest", "git", "npm", "bash", "python", "mkdocs", "cd", "export", "."}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path)
    if page.name == "batch.md":
        write_maps(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run_python(page)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_of_tested_kinds(page: Path) -> None:
    for block in blocks(page):
        assert block.kind in KINDS, f"{name(page)}:{block.line} is {block.kind or 'of no kind'}"
        assert block.mark is None or (block.mark in MARKS and block.kind == "python")


def commands(page: Path) -> list[tuple[int, str]]:
    """Lines of shell: of bash blocks, and of indented ones that begin with gradtoken."""
    found = []
    for block in blocks(page):
        if block.kind == "bash":
            joined = re.sub(r"\\\n\s*", " ", block.code)
            lines = (part for line in joined.splitlines() for part in line.split("&&"))
            found += [(block.line, line.strip()) for line in lines if line.strip()]
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if re.match(r" {4}(gradtoken|python) ", line):
            found.append((number, line.strip()))
    return found


SHELL = [
    pytest.param(line, id=f"{name(page)}:{number}:{line[:40]}")
    for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for number, line in commands(page)
]


@pytest.mark.parametrize("line", SHELL)
def test_commands_parse(line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words:
        return
    program, *arguments = words
    if program == "python" and arguments[0].endswith(".py"):
        assert (ROOT / arguments[0]).exists()
    if program in OTHER_PROGRAMS:
        return
    assert program == "gradtoken", line
    understand(arguments)


def understand(arguments: list[str]) -> None:
    """Parse the arguments of `gradtoken` without doing what they say."""

    group: Any = get_command(app)
    command, *rest = arguments
    if command.startswith("-"):
        assert command in {option for p in group.params for option in p.opts} | {"--help", "-h"}
        return
    assert command in group.commands, command
    if "--help" not in rest:
        group.commands[command].make_context(command, rest)


def test_understand_rejects_misspelt_option() -> None:
    for line in (["explain", "a.jpg", "--topk", "3"], ["explian", "a.jpg"], ["compare"]):
        with pytest.raises(BaseException, match=r".") as caught:
            understand(line)
        assert type(caught.value).__name__ in ("NoSuchOption", "MissingParameter", "AssertionError")
