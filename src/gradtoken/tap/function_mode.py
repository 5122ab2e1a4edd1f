"""The base of every mode that intercepts torch functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode


class FunctionMode(TorchFunctionMode):
    """Passes every torch function called on this thread to `intercept`.

    Inside `intercept` the mode is off, so a function called there runs as torch's own.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self.intercept(func, args, kwargs or {})

    def intercept(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The result of one call; by default the function's own."""
        return func(*args, **kwargs)
