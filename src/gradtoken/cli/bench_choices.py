"""What `--methods` and `--metrics` of `gradtoken bench` name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gradtoken.cli import options as shared
from gradtoken.errors import MethodError

if TYPE_CHECKING:
    from gradtoken.attribution import Method

_COMMAS = re.compile(r",(?![^(\[]*[)\]])")
"""Commas that are not inside brackets."""


def parse_methods(text: str) -> dict[str, Method]:
    """Methods by their text in `--methods`, such as `gradtoken:preset=sharp`, and the floor."""
    from gradtoken.attribution import make_method, methods
    from gradtoken.attribution.built_in import FLOOR

    if text == "all":
        return {name: make_method(name) for name, kind in methods().items() if not kind.of_prompts}
    chosen = {}
    for item in _COMMAS.split(text):
        name, *options = item.strip().split(":")
        chosen[item.strip()] = make_method(name, **shared.parse_options(options))
    if all(method.name != FLOOR for method in chosen.values()):
        chosen[FLOOR] = make_method(FLOOR)
    return chosen


def parse_groups(text: str) -> list[str]:
    """The groups of metrics in `--metrics`."""
    from gradtoken.bench.mosaics import GRID_POINTING
    from gradtoken.bench.scores import GROUPS
    from gradtoken.errors import did_you_mean

    known = [*GROUPS, GRID_POINTING]
    if text == "all":
        return known
    names = [name.strip().replace("_", "-") for name in text.split(",")]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are {', '.join(known)}."
            raise MethodError(f"no group of metrics is named {name!r}{hint}")
    return names
