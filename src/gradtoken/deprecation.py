"""Former names of parameters, which work with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed_parameters(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take parameters by their former names too, with a `DeprecationWarning`.

    Args:
        **names: the present name of each former one.

    Example:
        >>> @renamed_parameters(one="maps")
        ... def mean(maps): ...
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for former, name in names.items():
                if former not in kwargs:
                    continue
                if name in kwargs:
                    raise TypeError(f"{former}= is a former name of {name}=; give {name}= alone.")
                warnings.warn(
                    f"{former}= is deprecated; use {name}=.", DeprecationWarning, stacklevel=2
                )
                kwargs[name] = kwargs.pop(former)
            return function(*args, **kwargs)

        return call

    return decorate
