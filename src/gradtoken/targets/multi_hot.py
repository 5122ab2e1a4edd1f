"""Multi-hot rows: classes marked by a bool or float each, and distinguished from ids."""

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
        TargetError: a tensor without readable values (sparse, "meta").
    """
    try:
        return targets.tolist()
    except (RuntimeError, NotImplementedError) as error:
        raise TargetError(f"the tensor of targets cannot be read: {error}.") from None


def as_rows(targets: Any) -> list[Any]:
    """The rows of a tensor or array of two dimensions.

    Raises:
        TargetError: a tensor without readable rows (sparse, "meta").
    """
    try:
        return list(targets)
    except (RuntimeError, NotImplementedError) as error:
        raise TargetError(f"the tensor of targets cannot be read: {error}.") from None


def row_of_targets(row: Any, classes: int) -> list[Any]:
    """The targets in a row: its items, or the ids of the classes that it marks.

    As many bools, or floats 0.0 and 1.0, as there are classes mark the classes to explain.
    Integers are ids, never marks.

    Args:
        row: a list, or a tensor or array of one dimension.
        classes: C, the number of the model's classes.

    Raises:
        TargetError: no class is marked; bools or floats that are not a mark for each class;
            integers that can only be marks.
    """
    items = as_list(row) if isinstance(row, Array) else list(row)
    values = [_plain(item) for item in items]
    if len(values) == classes and _are_marks(values):
        ids = [index for index, mark in enumerate(values) if mark]
        if not ids:
            raise TargetError("a row of marks has no class set; mark one, or leave the row out.")
        return ids
    if isinstance(row, Array) and any(isinstance(value, (bool, float)) for value in values):
        raise TargetError(
            f"{len(values)} targets of {str(row.dtype).removeprefix('torch.')} are neither class "
            f"ids nor one mark (0 or 1) for each of the model's {classes} classes; give integer "
            "ids, or marks as bools (B, C)."
        )
    check_integer_ids(values, classes)
    return items


def check_integer_ids(values: Sequence[Any], classes: int) -> None:
    """Check that integers are ids.

    Raises:
        TargetError: there are as many as classes, and some are equal: they are marks.
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
    same_type = len({type(value) for value in values}) == 1 and type(values[0]) in (bool, float)
    return same_type and all(value in (0, 1) for value in values)


def _plain(item: Any) -> Any:
    """A scalar of numpy or torch as a Python number."""
    scalar = getattr(item, "ndim", None) == 0 and not getattr(item, "is_meta", False)
    return item.item() if scalar else item
