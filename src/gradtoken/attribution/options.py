"""Checks of a method's options, for `__post_init__`."""

from __future__ import annotations

import math
from typing import Any, get_args

from gradtoken.attribution.base import Method
from gradtoken.errors import MethodError
from gradtoken.images.fills import Fill


def is_number(value: Any) -> bool:
    """Whether a value is a finite int or float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value)


def check_whole(method: Method, option: str, least: int = 1) -> None:
    """Check that an option is a whole number from `least` up.

    Raises:
        MethodError: if it is not.
    """
    value = getattr(method, option)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise MethodError(_message(method, option, f"it must be a whole number from {least} up."))


def check_flag(method: Method, option: str) -> None:
    """Check that an option is True or False.

    Raises:
        MethodError: if it is not.
    """
    if not isinstance(getattr(method, option), bool):
        raise MethodError(_message(method, option, "it can be True or False."))


def check_fraction(method: Method, option: str) -> None:
    """Check that an option is a number above 0 and up to 1.

    Raises:
        MethodError: if it is not.
    """
    value = getattr(method, option)
    if not is_number(value) or not 0 < value <= 1:
        raise MethodError(_message(method, option, "it must be above 0 and up to 1."))


def check_number(method: Method, option: str, least: float = 0) -> None:
    """Check that an option is a finite number from `least` up.

    Raises:
        MethodError: if it is not.
    """
    value = getattr(method, option)
    if not is_number(value) or value < least:
        raise MethodError(_message(method, option, f"it must be a number from {least} up."))


def check_seed(method: Method, option: str = "seed") -> None:
    """Check that an option is a seed that a random generator takes.

    Raises:
        MethodError: if it is not.
    """
    check_whole(method, option, least=0)
    if getattr(method, option) >= 1 << 32:
        raise MethodError(_message(method, option, "it must be below 2 to the power of 32."))


def check_fill(method: Method, option: str) -> None:
    """Check that an option names a fill (`gradtoken.images.fills`).

    Raises:
        MethodError: if it does not.
    """
    if getattr(method, option) not in get_args(Fill):
        known = ", ".join(map(repr, get_args(Fill)))
        raise MethodError(_message(method, option, f"it can be {known}."))


def _message(method: Method, option: str, expected: str) -> str:
    return f"{method.name}'s {option} is {getattr(method, option)!r}; {expected}"
