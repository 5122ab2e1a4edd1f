"""Choosing among a model's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from gradtoken.errors import MethodError, NotSupportedError

Layers: TypeAlias = str | int | Sequence[int]
"""Block indices (0-based, negative from the end), the number of last blocks, or "all", "half" (the
upper one) or "last"."""


def as_index_list(layers: Any) -> Any:
    """An array or range of block indices as a plain list; any other value unchanged."""
    if isinstance(layers, (str, int)):
        return layers
    try:
        return [int(i) if isinstance(i, (int, np.integer)) else i for i in layers]
    except TypeError:
        return layers


def select_layers(layers: Layers, depth: int) -> list[int]:
    """The block indices that an option `layers` selects in a model of `depth` blocks.

    Raises:
        MethodError: if it selects none, or a block that the model does not have.
    """
    if layers == "all":
        return list(range(depth))
    if layers == "half":
        return list(range(depth // 2, depth))
    if layers == "last":
        return [depth - 1]
    if isinstance(layers, int) and not isinstance(layers, bool) and 1 <= layers <= depth:
        return list(range(depth - layers, depth))
    if isinstance(layers, Sequence) and not isinstance(layers, str):
        fits = [isinstance(i, int) and -depth <= i < depth for i in layers]
        if fits and all(fits):
            return sorted({i % depth for i in layers})
    raise MethodError(
        f"layers={layers!r} does not fit a model of {depth} blocks; use 'all', 'half', 'last', "
        f"1 to {depth} for so many last blocks, or a list of block indices."
    )


def block_index(method: Any, option: str, depth: int, spec: str) -> int:
    """The index (0-based) of the one block that an option of a method names.

    Args:
        method: the method.
        option: the name of the option, whose value is an index, negative from the end.
        depth: L, the number of blocks of the model.
        spec: the model's name, for errors.

    Raises:
        MethodError: if the model has no such block.
        NotSupportedError: if the blocks of the model are not followed.
    """
    index = getattr(method, option)
    if not depth:
        raise NotSupportedError(
            f"changes the tokens of a block, and {spec} is followed at its last stage alone; use "
            "gradtoken."
        )
    if not -depth <= index < depth:
        raise MethodError(f"{method.name}'s {option} is {index}, but {spec} has {depth} blocks.")
    return int(index % depth)
