"""Finding methods by name: the built-in ones and those other packages add."""

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
    """Every method by name: ours first, then those of the entry-point group `gradtoken.methods`."""
    return {name: _load(name) for name in [*BUILT_IN, *_added()]}


def make_method(method: str | type[Method], **options: Any) -> Method:
    """A method, by name or class, with options.

    Args:
        method: a name from `methods()` or a subclass of `Method`.
        **options: its fields; and `preset`, where the method has presets, whose options yield to
            those that are spelt out.

    Raises:
        MethodError: unknown name or option (the nearest are suggested), or a value out of range.
    """
    kind = _find(method)
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
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            hint = did_you_mean(option, known) or f"; {has}."
            raise MethodError(f"{kind.name} has no option {option!r}{hint}")
    return kind(**options)


def _find(method: object) -> type[Method]:
    if isinstance(method, type) and issubclass(method, Method):
        return method
    if isinstance(method, str) and (method in BUILT_IN or method in _added()):
        return _load(method)
    names = [*BUILT_IN, *_added()]
    near = did_you_mean(method, names) if isinstance(method, str) else ""
    hint = near or f"; there are {', '.join(names)}."
    raise MethodError(f"no method is named {method!r}{hint}")


@cache
def _added() -> dict[str, EntryPoint]:
    """The entry points of other packages, by name; the names of built-in methods are taken."""
    found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return {entry.name: entry for entry in found if entry.name not in BUILT_IN}


@cache
def _load(name: str) -> type[Method]:
    if name in BUILT_IN:
        module, _, kind_name = BUILT_IN[name].partition(":")
        built_in: type[Method] = getattr(
            import_module(f"gradtoken.attribution.{module}"), kind_name
        )
        return built_in
    kind = _added()[name].load()
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise MethodError(
            f"the entry point {name!r} of {GROUP} is {kind!r}, not a subclass of "
            "gradtoken.attribution.Method; fix the package that declares it."
        )
    return kind
