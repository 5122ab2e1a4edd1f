"""Finding methods by name: the built-in ones, and those that other packages declare."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gradtoken.attribution.base import Method
from gradtoken.attribution.built_in import BUILT_IN, GROUP
from gradtoken.errors import MethodError, did_you_mean


def methods() -> dict[str, type[Method]]:
    """Every method by name: the built-in ones, then those of entry points (`gradtoken.methods`).

    Raises:
        MethodError: if an entry point is not a method.
    """
    return {name: load_method(name) for name in [*BUILT_IN, *added_methods()]}


def make_method(method: str | type[Method], **options: Any) -> Method:
    """A method, by name or class, with options.

    Args:
        method: a name from `methods()`, where an underscore stands for a hyphen too, or a subclass
            of `Method`.
        **options: its fields; and `preset`, where the method has presets, whose options are
            overridden by explicit ones.

    Raises:
        MethodError: if a name or option is unknown (the nearest are suggested), or a value is out
            of range.
    """
    kind = _resolve(method)
    preset = options.pop("preset", None) if kind.presets else None
    if preset is not None:
        if not isinstance(preset, str) or preset not in kind.presets:
            raise MethodError(
                f"{kind.name}'s preset is {preset!r}; it can be "
                f"{', '.join(map(repr, kind.presets))}."
            )
        options = {**kind.presets[preset], **options}
    known = [field.name for field in fields(kind)]
    for option in options:
        if option == "libra" and option not in known:
            raise MethodError(f"{kind.name} {kind.no_libra}; use it without libra.")
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            hint = did_you_mean(option, known) or f"; {has}."
            raise MethodError(f"{kind.name} has no option {option!r}{hint}")
    return kind(**options)


def _resolve(method: object) -> type[Method]:
    if isinstance(method, type) and issubclass(method, Method):
        return method
    if isinstance(method, str):
        for name in (method, method.replace("_", "-")):
            if name in BUILT_IN or name in added_methods():
                return load_method(name)
    names = [*BUILT_IN, *added_methods()]
    near = did_you_mean(method, names) if isinstance(method, str) else ""
    hint = near or f"; there are {', '.join(names)}."
    raise MethodError(f"no method is named {method!r}{hint}")


@cache
def added_methods() -> dict[str, EntryPoint]:
    """The entry points of other packages by name; one with the name of a built-in is ignored."""
    entries = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return {entry.name: entry for entry in entries if entry.name not in BUILT_IN}


@cache
def load_method(name: str) -> type[Method]:
    """Import the class of a method that has a name here.

    Raises:
        MethodError: if the entry point of that name is not a method.
    """
    if name in BUILT_IN:
        module, _, kind_name = BUILT_IN[name].partition(":")
        built_in: type[Method] = getattr(
            import_module(f"gradtoken.attribution.{module}"), kind_name
        )
        return built_in
    kind = added_methods()[name].load()
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise MethodError(
            f"the entry point {name!r} of {GROUP} is {kind!r}, not a subclass of "
            "gradtoken.attribution.Method; fix the package that declares it."
        )
    return kind
