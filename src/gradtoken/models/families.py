"""The libraries whose models can be read, and which of them a module is from."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from gradtoken.errors import ModelError
from gradtoken.images.preprocess import Preprocess
from gradtoken.targets.prompts import Prompts

FAMILIES = ("timm", "hf", "torchvision", "open_clip")
"""Prefixes of names: timm/NAME, hf/ID, torchvision/NAME, open_clip/ARCHITECTURE/TAG."""

_NEEDS = {
    "timm": ("timm", "reinstall gradtoken with its dependencies"),
    "hf": ("transformers", 'pip install "gradtoken[hf]"'),
    "torchvision": ("torchvision", "reinstall gradtoken with its dependencies"),
    "open_clip": ("open_clip_torch", 'pip install "gradtoken[clip]"'),
}
"""The distribution that a family's models come from, and how to install it."""


Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class BuiltModel:
    """A module built by name, with what its library tells; None is read from the module."""

    module: nn.Module
    preprocess: Preprocess | None = None
    prompts: Prompts | None = None


def family(name: str) -> Any:
    """The module that reads models of a family.

    Raises:
        ModelError: if its library is not installed.
    """
    try:
        return importlib.import_module(f"gradtoken.models.{name}")
    except ImportError as error:
        library, remedy = _NEEDS[name]
        raise ModelError(
            f"{name}/ models need {library}, which cannot be imported ({error}); {remedy}."
        ) from None


def family_of(module: nn.Module) -> ModuleType | None:
    """The family of a live module, by the library its classes are from; None if it is unknown."""
    roots = {kind.__module__.partition(".")[0] for kind in type(module).__mro__}
    for name, root in (("hf", "transformers"), ("open_clip", "open_clip")):
        if root in roots:
            return family(name)
    if "torchvision" in roots:
        return family("torchvision")
    timm = family("timm")
    return timm if "timm" in roots or timm.looks_like(module) else None


def pair(size: Any) -> tuple[int, int]:
    """A size that libraries give as one number or two, as (height, width)."""
    return (size, size) if isinstance(size, int) else tuple(size)
