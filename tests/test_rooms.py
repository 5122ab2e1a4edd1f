"""The order of the rooms: imports go down only, and never in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import rooms

MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 60
REPLACED = ("app",)
"""Rooms that are to be replaced, whose functions may be longer until then."""


def test_floors_name_every_room() -> None:
    named = {name for floor in rooms.FLOORS for name in floor}
    built = {rooms.room(module) for module in rooms.files()} - {"", "__main__", *rooms.DEPRECATED}
    assert built == named


def test_rooms_import_lower_floors_only() -> None:
    level = {name: i for i, floor in enumerate(rooms.FLOORS) for name in floor}
    upward = [
        f"{name} imports {other}"
        for name, others in rooms.room_imports().items()
        for other in others
        if level[name] <= level[other]
    ]
    assert not upward


def test_no_modules_import_each_other() -> None:
    assert not rooms.circles(rooms.imports(rooms.files()))


def test_circles_finds_a_circle_and_no_chain() -> None:
    chain = {"a": {"b"}, "b": {"c"}, "c": set()}
    assert not rooms.circles(chain)
    assert rooms.circles({**chain, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]


def test_imports_inside_functions_and_for_types_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gradtoken"
    package.mkdir()
    (package / "low.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gradtoken.high import A\n"
    )
    (package / "high.py").write_text("def f():\n    import gradtoken.low\n")
    monkeypatch.setattr(rooms, "PACKAGE", package)
    edges = rooms.imports(rooms.files())
    assert edges == {"gradtoken.low": {"gradtoken.high"}, "gradtoken.high": {"gradtoken.low"}}


def test_diagram_equals_imports() -> None:
    drawn = rooms.DIAGRAM.read_text("utf-8")
    assert drawn == rooms.diagram(rooms.room_imports()), "run python tools/rooms.py"


def test_files_and_functions_are_short() -> None:
    long = []
    for path in rooms.files().values():
        text = path.read_text("utf-8")
        if text.count("\n") > MOST_LINES:
            long.append(str(path))
        if path.relative_to(rooms.PACKAGE).parts[0] in REPLACED:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.lineno + 1
                docstring = (ast.get_docstring(node, clean=False) or "").count("\n")
                if lines - docstring > MOST_LINES_OF_A_FUNCTION:
                    long.append(f"{path}: {node.name}")
    assert not long
