"""Names of models that can be loaded."""

from __future__ import annotations

from contextlib import suppress
from fnmatch import fnmatch

import timm

from gradtoken.errors import ModelError
from gradtoken.models.families import family

_MODULES = (
    "vision_transformer",
    "vision_transformer_relpos",
    "deit",
    "eva",
    "beit",
    "cait",
    "xcit",
    "pit",
    "naflexvit",
    "swin_transformer",
    "swin_transformer_v2",
    "swin_transformer_v2_cr",
    "hiera",
)


def list_models(pattern: str = "") -> list[str]:
    """`demo` and the libraries' Vision Transformers whose name matches or contains a pattern.

    Libraries that are not installed are left out, and transformers, whose models have no list.
    """
    names = ["demo"]
    names += sorted(
        f"timm/{name}" for module in _MODULES for name in timm.list_models(module=module)
    )
    names += [f"torchvision/{name}" for name in sorted(family("torchvision").names())]
    with suppress(ModelError):
        names += [f"open_clip/{name}" for name in sorted(family("open_clip").names())]
    if not pattern:
        return names
    wildcard = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [name for name in names if fnmatch(name.casefold(), wildcard.casefold())]
