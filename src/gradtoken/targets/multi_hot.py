"""Classes given by a mark each (multi-hot rows), told apart from ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gradtoken.errors import TargetError

Array = (Tensor, np.ndarray)


def as_list(targets: Any) -> Any:
    """A tensor or array as nested lists.

    Raises:
        TargetError: a tensor without numbers that can be read.
    """
    try:
        return targets.tolist()
    except (RuntimeError, NotImplementedError) as error:
        raise TargetError(f"the tensor of targets cannot be read: {error}.") from None


def rows_of(targets: Any) -> list[Any]:
    """The rows of a tensor or array of two dimensions.

    Raises:
        TargetError: a tensor without rows that can be read.
    """
    try:
        return list(targets)
    except (RuntimeError, NotImplementedError) as error:
        raise TargetError(f"the tensor of targets cannot be read: {error}.") from None


def row_of_targets(row: Any, classes: int) -> list[Any]:
    """The targets in one row: what stands there, or the ids of the classes that are marked.

    One bool for each class, or one float 0.0 or 1.0 for each class, marks the classes to explain.
    Integers are ids, never marks.

    Args:
        row: a list, or a tensor or array of one dimension.
        classes: C, the number of the model's classes.

    Raises:
        TargetError: no class is marked; bools or floats that are not one mark for each class;
            integers that can only be meant as marks.
    """
    items = as_list(row) if isinstance(row, Array) else list(row)
    values = [_plain(item) for item in items]
    if len(values) == classes and _are_marks(values):
        found = [index for index, mark in enumerate(values) if mark]
        if not found:
            raise TargetError("a row of marks has no class set; mark one, or leave the row out.")
        return found
    if isinstance(row, Array) and any(isinstance(value, (bool, float)) for value in values):
        raise TargetError(
            f"{len(values)} targets of {str(row.dtype).removeprefix('torch.')} are neither class "
            f"ids nor one mark (0 or 1) for each of the model's {classes} classes; give integer "
            "ids, or marks as bools (B, C)."
        )
    refuse_integer_marks(values, classes)
    return items


def refuse_integer_marks(values: Sequence[Any], classes: int) -> None:
    """Refuse as many integers as there are classes, some of them equal: they are no ids.

    Raises:
        TargetError: saying how to write ids, and how marks.
    """
    if len(values) != classes or classes < 3 or not all(type(value) is int for value in values):
        return
    if len(set(values)) < classes:
        raise TargetError(
            f"{classes} integers with repeats, for a model of {classes} classes, look like a mark "
            "for each class, and integers are read as class ids; give marks as bools "
            "(targets.bool(), or targets.astype(bool) of an array), or the ids of the classes "
            "(targets.nonzero())."
        )


def _are_marks(values: Sequence[Any]) -> bool:
    one_kind = len({type(value) for value in values}) == 1 and type(values[0]) in (bool, float)
    return one_kind and all(value in (0, 1) for value in values)


def _plain(item: Any) -> Any:
    """A scalar of numpy or torch as a Python number."""
    scalar = getattr(item, "ndim", None) == 0 and not getattr(item, "is_meta", False)
    return item.item() if scalar else item
