"""The rooms of the package and what they import: their order, and the diagram in docs/design.md.

    python tools/rooms.py

writes docs/images/rooms.svg. A room is a package of `src/gradtoken` or one of its own modules.
`tests/test_rooms.py` holds the order and compares the diagram with the code.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "gradtoken"
DIAGRAM = ROOT / "docs" / "images" / "rooms.svg"

FLOORS = (
    ("errors", "precision", "deprecation"),
    ("atomic", "extras"),
    ("images", "targets", "tap"),
    ("models",),
    ("explanation", "trace"),
    ("attribution", "batching"),
    ("datasets", "explaining", "checking"),
    ("metrics", "adapters"),
    ("report", "batch"),
    ("bench", "app"),
    ("cli",),
)
"""From the ground up: a room imports rooms of lower floors only."""

DEPRECATED = ("captum", "quantus", "sheet")
"""Modules that hand on the names of their successors."""

_WIDTH, _HEIGHT, _GAP, _BOX = 880, 58, 22, 150


def files() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {_dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """The room of a module; empty for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules that each module imports, also inside functions and for types alone."""
    edges: dict[str, set[str]] = defaultdict(set)
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            edges[module] |= {name for name in _names(node, known) if name != module}
    return edges


def room_imports() -> dict[str, set[str]]:
    """The rooms that each room imports."""
    edges: dict[str, set[str]] = defaultdict(set)
    for module, imported in imports(files()).items():
        for other in imported:
            here, there = room(module), room(other)
            if here and there and here != there and here not in ("__main__", *DEPRECATED):
                edges[here].add(there)
    return edges


def circles(edges: Mapping[str, set[str]]) -> list[set[str]]:
    """The modules of the first circle of imports; empty where there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return [set(error.args[1])]
    return []


def diagram(edges: Mapping[str, set[str]]) -> str:
    """An SVG of the floors, with an arrow for each import that no chain of others implies."""
    centres: dict[str, tuple[float, float]] = {}
    boxes = []
    for level, names in enumerate(reversed(FLOORS)):
        y = _GAP + level * (_HEIGHT + _GAP)
        for place, name in enumerate(names):
            x = _WIDTH * (place + 0.5) / len(names) + (level % 2 - 0.5) * 60
            centres[name] = (x, y)
            boxes.append(
                f'<rect x="{x - _BOX / 2:g}" y="{y}" width="{_BOX}" height="{_HEIGHT - 22}" '
                'rx="5"/>'
                f'<text x="{x:g}" y="{y + 23}">{escape(name)}</text>'
            )
    arrows = []
    for name, others in sorted(edges.items()):
        for other in sorted(others - _implied(edges, others)):
            (x, y), (u, v) = centres[name], centres[other]
            arrows.append(
                f'<path d="M{x:g} {y + _HEIGHT - 22} L{u:g} {v - 4}" marker-end="url(#tip)"/>'
            )
    height = len(FLOORS) * (_HEIGHT + _GAP) + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-40 0 {_WIDTH + 80} {height}" '
        'font-family="sans-serif" font-size="15" text-anchor="middle">\n'
        "<title>The rooms of gradtoken and what they import</title>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#888"/></marker></defs>\n'
        '<g stroke="#888" fill="none">\n' + "\n".join(arrows) + "\n</g>\n"
        '<g fill="#eef2fb" stroke="#3f51b5">\n'
        + "\n".join(box.partition("<text")[0] for box in boxes)
        + '\n</g>\n<g fill="#222">\n'
        + "\n".join("<text" + box.partition("<text")[2] for box in boxes)
        + "\n</g>\n</svg>\n"
    )


def _implied(edges: Mapping[str, set[str]], others: set[str]) -> set[str]:
    """The rooms that are reached through one of some others."""
    reached: set[str] = set()
    waiting = [below for other in others for below in edges.get(other, ())]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += edges.get(name, ())
    return reached


def _dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _names(node: ast.AST, known: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and node.module in known:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in known else node.module
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)


if __name__ == "__main__":
    DIAGRAM.write_text(diagram(room_imports()), "utf-8")
