"""Names of models that can be asked for."""

from __future__ import annotations

from fnmatch import fnmatch

import timm

_MODULES = ("vision_transformer", "deit", "eva", "beit")


def list_models(pattern: str = "") -> list[str]:
    """`demo` and timm's Vision Transformers whose name matches a pattern or contains a text."""
    names = [
        "demo",
        *sorted(f"timm/{name}" for module in _MODULES for name in timm.list_models(module=module)),
    ]
    if not pattern:
        return names
    wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [name for name in names if fnmatch(name.casefold(), wanted.casefold())]
