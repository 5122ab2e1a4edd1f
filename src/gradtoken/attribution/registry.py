"""Finding methods by name: the built-in ones and those other packages add."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gradtoken.attribution.base import Method
from gradtoken.errors import MethodError, did_you_mean

GROUP = "gradtoken.methods"


def methods() -> dict[str, type[Method]]:
    """Every method by name: ours first, then those of the entry-point group `gradtoken.methods`."""
    return {name: _load(name) for name in _entries()}


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
    if isinstance(method, str) and method in _entries():
        return _load(method)
    known = ", ".join(_entries())
    near = did_you_mean(method, _entries()) if isinstance(method, str) else ""
    raise MethodError(f"no method is named {method!r}{near or f'; there are {known}.'}")


@cache
def _entries() -> dict[str, EntryPoint]:
    found = sorted(
        entry_points(group=GROUP),
        key=lambda e: (e.name != "gradtoken", not e.value.startswith("gradtoken."), e.name),
    )
    return {entry.name: entry for entry in found}


@cache
def _load(name: str) -> type[Method]:
    kind = _entries()[name].load()
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise MethodError(
            f"the entry point {name!r} of {GROUP} is {kind!r}, not a subclass of "
            "gradtoken.attribution.Method; fix the package that declares it."
        )
    return kind
