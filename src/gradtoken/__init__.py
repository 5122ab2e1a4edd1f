"""gradtoken: why this class, and not that one? Explanations of Vision Transformers, per class."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradtoken.attribution import methods
    from gradtoken.errors import (
        DatasetError,
        GradTokenError,
        ImageError,
        MethodError,
        ModelError,
        OutputError,
        TargetError,
    )
    from gradtoken.explaining import explain, explain_each
    from gradtoken.explanation.explanation import Explanation
    from gradtoken.explanation.style import Style
    from gradtoken.images.preprocess import Preprocess
    from gradtoken.metrics.coupling import coupling
    from gradtoken.models import Model, load, wrap
    from gradtoken.models.layout import TokenLayout
    from gradtoken.targets import above, contrast, finer, log_prob, text

_HOMES = {
    "DatasetError": "errors",
    "Explanation": "explanation.explanation",
    "GradTokenError": "errors",
    "ImageError": "errors",
    "MethodError": "errors",
    "Model": "models",
    "ModelError": "errors",
    "OutputError": "errors",
    "Preprocess": "images.preprocess",
    "Style": "explanation.style",
    "TargetError": "errors",
    "TokenLayout": "models.layout",
    "above": "targets",
    "contrast": "targets",
    "coupling": "metrics.coupling",
    "explain": "explaining",
    "explain_each": "explaining",
    "finer": "targets",
    "load": "models",
    "log_prob": "targets",
    "methods": "attribution",
    "text": "targets",
    "wrap": "models",
}

_ROOMS = ("adapters", "attribution", "batch", "datasets", "metrics", "report")
_DEPRECATED = ("captum", "quantus")

__version__ = "0.1.0"

__all__ = [
    "DatasetError",
    "Explanation",
    "GradTokenError",
    "ImageError",
    "MethodError",
    "Model",
    "ModelError",
    "OutputError",
    "Preprocess",
    "Style",
    "TargetError",
    "TokenLayout",
    "above",
    "contrast",
    "coupling",
    "explain",
    "explain_each",
    "finer",
    "load",
    "log_prob",
    "methods",
    "text",
    "wrap",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that `import gradtoken` does not wait for torch."""
    if name in _ROOMS or name in _DEPRECATED:
        return import_module(f"gradtoken.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'gradtoken' has no attribute {name!r}")
    return getattr(import_module(f"gradtoken.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_ROOMS])
