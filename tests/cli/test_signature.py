"""Command functions made from dataclasses of options."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from gradtoken.cli.signature import Without, as_command


@dataclass(frozen=True)
class Loading:
    device: Annotated[str, typer.Option(help="Where.")] = "cpu"
    random: Annotated[bool, typer.Option("--random", help="Which weights.")] = False
    size: Annotated[int | None, typer.Option(min=1)] = None


@dataclass(frozen=True)
class Everything:
    name: Annotated[str, typer.Argument(help="A name.")]
    out: Annotated[str, typer.Option()]
    loading: Loading = field(default_factory=Loading)
    quiet: Annotated[bool, typer.Option("--quiet", "-q")] = False


@dataclass(frozen=True)
class Fewer:
    random: Annotated[str, typer.Option()] = "seed"
    loading: Annotated[Loading, Without("random"), Without("size")] = field(default_factory=Loading)


def command_of(options: type[Any], results: list[Any], doc: str | None = None) -> Any:
    def run(options: Any) -> None:
        results.append(options)

    run.__annotations__ = {"options": options, "return": None}
    run.__doc__ = doc
    return as_command(run)


def invoke(options: type[Any], *arguments: str) -> tuple[int, list[Any], str]:
    results: list[Any] = []
    app = typer.Typer()
    app.command()(command_of(options, results, "Do it."))
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, results, result.output


def test_as_command_has_a_parameter_per_option_in_order() -> None:
    parameters = inspect.signature(command_of(Everything, [])).parameters
    assert list(parameters) == ["name", "out", "device", "random", "size", "quiet"]
    assert parameters["name"].default is inspect.Parameter.empty
    assert parameters["device"].default == "cpu"
    assert list(inspect.signature(command_of(Fewer, [])).parameters) == ["random", "device"]


def test_as_command_keeps_name_and_docstring() -> None:
    command = command_of(Fewer, [], "Do it.")
    assert (command.__name__, command.__doc__) == ("run", "Do it.")


def test_typer_builds_the_dataclass_and_its_groups() -> None:
    arguments = ("n", "--out", "o", "--random", "--size", "3", "-q")
    code, results, _ = invoke(Everything, *arguments)
    assert code == 0
    assert results == [Everything("n", "o", Loading("cpu", True, 3), True)]
    code, results, _ = invoke(Everything, "n", "--out", "o")
    assert (code, results) == (0, [Everything("n", "o")])


def test_without_leaves_an_option_at_its_default() -> None:
    code, results, _ = invoke(Fewer, "--random", "x", "--device", "gpu")
    assert (code, results) == (0, [Fewer("x", Loading("gpu"))])
    code, results, output = invoke(Fewer, "--size", "3")
    assert (code, results) == (2, [])
    assert "--size" in output


@pytest.mark.parametrize(
    "arguments", [[], ["n"], ["n", "--out", "o", "--size", "0"], ["n", "--out", "o", "--depth"]]
)
def test_typer_rejects_what_the_options_do_not_allow(arguments: list[str]) -> None:
    code, results, _ = invoke(Everything, *arguments)
    assert (code, results) == (2, [])


def test_help_shows_docstring_options_and_defaults() -> None:
    code, _, output = invoke(Everything, "--help")
    assert code == 0
    for words in ("Do it.", "--device", "Where.", "cpu", "--quiet", "-q"):
        assert words in output


def test_as_command_rejects_unknown_names_factories_and_duplicates() -> None:
    @dataclass(frozen=True)
    class Unknown:
        loading: Annotated[Loading, Without("nothing")] = field(default_factory=Loading)

    @dataclass(frozen=True)
    class Factory:
        names: Annotated[list[str], typer.Option()] = field(default_factory=list)

    @dataclass(frozen=True)
    class Twice:
        first: Loading = field(default_factory=Loading)
        second: Loading = field(default_factory=Loading)

    with pytest.raises(TypeError, match="has no option nothing"):
        command_of(Unknown, [])
    with pytest.raises(TypeError, match="names needs a default that is no factory"):
        command_of(Factory, [])
    with pytest.raises(ValueError, match="duplicate"):
        command_of(Twice, [])
