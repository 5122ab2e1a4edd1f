"""Command functions made from dataclasses of options.

Typer reads the options of a command from the signature of a function. Here they are the fields of a
frozen dataclass, annotated as Typer expects. A field that is itself a dataclass is a group: it
stands for all of its fields, so that several commands share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Without:
    """Marks a group of options that a command takes without one of them.

    `Annotated[ModelOptions, Without("random_weights")]` has every option of the group but that one,
    which keeps its default.

    Args:
        name: the field of the group to leave out.
    """

    name: str


def as_command(run: Callable[[Any], None]) -> Callable[..., None]:
    """A function for Typer with one keyword parameter for each option.

    Args:
        run: takes a dataclass of options as its only parameter; its docstring becomes the help.

    Returns:
        A function that puts its arguments into the dataclass and calls `run` with it.

    Raises:
        TypeError: if an option has a default factory, or `Without` names no field of its group.
        ValueError: if two groups have an option of the same name.
    """
    (name,) = signature(run).parameters
    options = get_type_hints(run)[name]
    parameters = list(_parameters(options))

    def command(**values: Any) -> None:
        run(_build(options, values))

    command.__name__ = run.__name__
    command.__doc__ = run.__doc__
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return command


def _parameters(options: type[Any]) -> Iterator[Parameter]:
    """The fields as keyword parameters, in order, each group in the place of its field."""
    hints = get_type_hints(options, include_extras=True)
    for field in fields(options):
        hint = hints[field.name]
        group, omitted = _group(hint)
        if group is not None:
            yield from (p for p in _parameters(group) if p.name not in omitted)
            continue
        if field.default_factory is not MISSING:
            raise TypeError(f"the option {field.name} needs a default that is no factory.")
        default = Parameter.empty if field.default is MISSING else field.default
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _group(hint: Any) -> tuple[type[Any] | None, frozenset[str]]:
    """The dataclass of a field that is a group, and the names of the options it is without."""
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if not is_dataclass(kind):
        return None, frozenset()
    omitted = frozenset(note.name for note in notes if isinstance(note, Without))
    if unknown := omitted - {field.name for field in fields(kind)}:
        raise TypeError(f"{kind} has no option {min(unknown)} to be without.")
    return kind, omitted  # type: ignore[return-value]


def _build(options: type[Any], values: Mapping[str, Any]) -> Any:
    """The dataclass with these values, by the names of the options."""
    arguments = {}
    for name, hint in get_type_hints(options, include_extras=True).items():
        group, omitted = _group(hint)
        if group is not None:
            present = {key: value for key, value in values.items() if key not in omitted}
            arguments[name] = _build(group, present)
        elif name in values:
            arguments[name] = values[name]
    return options(**arguments)
