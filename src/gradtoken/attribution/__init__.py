"""Attribution methods, one per file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradtoken.attribution.base import Method
    from gradtoken.attribution.registry import make_method, methods

_HOMES = {"Method": "base", "make_method": "registry", "methods": "registry"}

__all__ = ["Method", "make_method", "methods"]


def __getattr__(name: str) -> Any:
    """Import a name when it is used, so that the names of methods are known without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gradtoken.attribution' has no attribute {name!r}")
    return getattr(import_module(f"gradtoken.attribution.{_HOMES[name]}"), name)
