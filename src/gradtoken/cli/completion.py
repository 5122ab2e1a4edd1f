"""Shell completion of the names of models and methods."""

from __future__ import annotations

from importlib.metadata import entry_points

from gradtoken.attribution.built_in import BUILT_IN, GROUP

_KINDS = ("demo", "timm/", "hf/", "torchvision/", "open_clip/")


def methods(incomplete: str) -> list[str]:
    """Names of methods that begin with `incomplete`, without importing the methods."""
    names = {*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))}
    return sorted(name for name in names if name.startswith(incomplete))


def models(incomplete: str) -> list[str]:
    """Kinds of models that begin with `incomplete`; after the kind's slash, names of models."""
    if "/" not in incomplete:
        return [kind for kind in _KINDS if kind.startswith(incomplete)]
    from gradtoken.models.listing import list_models

    return [name for name in list_models() if name.startswith(incomplete)]
