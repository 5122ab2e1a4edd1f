"""constraints.txt holds the whole closure, and is rewritten only when the gate has passed."""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import update_constraints
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
NOT_THE_GATES = {"atheris", "resvg-py"}
"""Of the extras `fuzz` and `tools`, which neither the tests nor the gate install."""
INSTALLER = {"pip"}


def pinned() -> dict[str, str]:
    pins = update_constraints.pins((ROOT / "constraints.txt").read_text())
    return {canonicalize_name(name): version for name, version in pins.items()}


def declared() -> list[Requirement]:
    groups = [PROJECT["project"]["dependencies"], PROJECT["build-system"]["requires"]]
    lines = [line for group in (*groups, *EXTRAS.values()) for line in group]
    return [one for one in map(Requirement, lines) if one.name != "gradtoken"]


def closure(requirements: Iterable[Requirement]) -> Iterator[str]:
    """Names of all installed packages that some requirements bring, theirs included."""
    waiting, seen = list(requirements), set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, extra))
            try:
                needs = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            yield name
            for need in map(Requirement, needs):
                if need.marker is None or need.marker.evaluate({"extra": extra}):
                    waiting.append(need)


def test_constraints_pin_declared_requirements_within_range() -> None:
    pins = pinned()
    for requirement in declared():
        name = canonicalize_name(requirement.name)
        if name not in NOT_THE_GATES:
            assert requirement.specifier.contains(pins[name]), requirement


def test_constraints_pin_all_dependencies() -> None:
    needed = set(closure(declared()))
    assert len(needed) > 150
    assert needed - NOT_THE_GATES - INSTALLER <= pinned().keys()


GATE = """[ "$1 $2" = "--newest --freeze" ] && printf '%b' '{frozen}' > "$3"; exit {code}\n"""


@pytest.fixture
def constraints(tmp_path: Path) -> Path:
    place = tmp_path / "constraints.txt"
    place.write_text(update_constraints.written({"b": "1.0", "gone": "3", "same": "2"}))
    return place


def _gate(folder: Path, frozen: str, code: int) -> Path:
    place = folder / "gate"
    place.write_text(GATE.format(frozen=frozen, code=code))
    return place


def test_update_rewrites_constraints_after_passed_gate(constraints: Path, tmp_path: Path) -> None:
    gate = _gate(tmp_path, r"same==2\nb==1.1\nA_new==1.0.post1\n", 0)
    changed = update_constraints.update(constraints, gate)
    assert changed == ["A_new: new -> 1.0.post1", "b: 1.0 -> 1.1", "gone: 3 -> gone"]
    lines = constraints.read_text().splitlines()
    assert [line for line in lines if line[0] != "#"] == ["A_new==1.0.post1", "b==1.1", "same==2"]
    assert lines[:2] == (ROOT / "constraints.txt").read_text().splitlines()[:2]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["constraints.txt", "gate"]


@pytest.mark.parametrize(
    ("frozen", "code", "reason"),
    [
        ("b==1.1\\n", 3, r"the gate failed with the newest versions \(3\)"),
        ("b==1.1+cpu\\n", 0, r"'b==1.1\+cpu' is not NAME==VERSION"),
        ("b @ file:///somewhere\\n", 0, r"'b @ file:///somewhere' is not NAME==VERSION"),
    ],
    ids=["the gate fails", "a build of one machine", "a path"],
)
def test_update_keeps_constraints_on_failure(
    constraints: Path, tmp_path: Path, frozen: str, code: int, reason: str
) -> None:
    before = constraints.read_text()
    with pytest.raises(update_constraints.UpdateError, match=reason):
        update_constraints.update(constraints, _gate(tmp_path, frozen, code))
    assert constraints.read_text() == before
