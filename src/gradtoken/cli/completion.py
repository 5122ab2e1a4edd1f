"""What the shell offers when a name is begun."""

from __future__ import annotations

from importlib.metadata import entry_points

_GROUP = "gradtoken.methods"
_KINDS = ("demo", "timm/", "hf/", "torchvision/", "open_clip/")


def methods(incomplete: str) -> list[str]:
    """Names of methods, found without importing them, so that the shell need not wait."""
    names = sorted(entry.name for entry in entry_points(group=_GROUP))
    return [name for name in names if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Kinds of models; and, once a kind is chosen, its models."""
    if "/" not in incomplete:
        return [kind for kind in _KINDS if kind.startswith(incomplete)]
    from gradtoken.models.listing import list_models

    return [name for name in list_models() if name.startswith(incomplete)]
