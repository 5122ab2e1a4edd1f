"""Finding built-in methods and those of other packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from gradtoken.attribution import Method, make_method, methods, registry
from gradtoken.attribution.attention.rollout import AttentionRollout
from gradtoken.errors import MethodError

ROLLOUT = "gradtoken.attribution.attention.rollout:AttentionRollout"


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points in place of those of the installed packages; none at first."""
    declared: list[EntryPoint] = []

    def entry_points(group: str) -> list[EntryPoint]:
        assert group == "gradtoken.methods"
        return declared

    def forget() -> None:
        registry.added_methods.cache_clear()
        registry.load_method.cache_clear()

    monkeypatch.setattr(registry, "entry_points", entry_points)
    forget()
    yield declared
    forget()


def declare(entries: list[EntryPoint], name: str, value: str) -> None:
    entries.append(EntryPoint(name, value, registry.GROUP))


def test_methods_finds_built_in_without_installed_metadata(entries: list[EntryPoint]) -> None:
    assert not entries
    assert list(methods()) == list(registry.BUILT_IN)
    for name, kind in methods().items():
        assert issubclass(kind, Method)
        assert kind.name == name
        assert isinstance(make_method(name), kind)


def test_make_method_takes_underscores_for_hyphens() -> None:
    assert type(make_method("grad_eclip")) is type(make_method("grad-eclip"))
    with pytest.raises(MethodError, match="no method is named 'grad_eclips'; did you mean"):
        make_method("grad_eclips")


def test_methods_adds_entry_point_of_other_package(entries: list[EntryPoint]) -> None:
    declare(entries, "another", ROLLOUT)
    assert list(methods()) == [*registry.BUILT_IN, "another"]
    assert type(make_method("another")) is AttentionRollout
    with pytest.raises(MethodError, match="no method is named 'anothr'; did you mean 'another'"):
        make_method("anothr")


def test_methods_ignores_entry_point_with_name_of_built_in(entries: list[EntryPoint]) -> None:
    declare(entries, "gae", ROLLOUT)
    assert list(methods()) == list(registry.BUILT_IN)
    assert methods()["gae"].__name__ == "GenericAttention"
    assert type(make_method("gae")) is not AttentionRollout


def test_methods_rejects_entry_point_that_is_no_method(entries: list[EntryPoint]) -> None:
    declare(entries, "broken", "gradtoken.errors:one_line")
    with pytest.raises(MethodError, match=r"'broken' of gradtoken.methods is .* not a subclass of"):
        make_method("broken")


def test_names_of_built_in_methods_need_no_torch() -> None:
    code = "import sys, gradtoken.attribution.built_in; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
