"""Detecting how a model's logits become probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from gradtoken.errors import ModelError
from gradtoken.targets.activation import Activation, check_activation

_PROBLEMS: dict[object, Activation] = {
    "multi_label_classification": "sigmoid",
    "single_label_classification": "softmax",
    "regression": "none",
}
"""transformers' `problem_type`."""


def detect_activation(
    module: nn.Module, classes: int, *, requested: object, described: object, spec: str
) -> Activation:
    """The activation of a classifier.

    The first of these that tells it: the caller, the file's description, the library (transformers'
    `config.problem_type`, `problem_type` or `activation` in timm's `pretrained_cfg`), one logit
    (sigmoid), otherwise softmax.

    Args:
        module: the network.
        classes: number of its logits.
        requested: the caller's, or None.
        described: `activation` in the description of a weights file, or None.
        spec: the model's name, for messages.

    Raises:
        ModelError: not an activation, or softmax for one logit, which would be 1 for every image.
    """
    if requested is not None:
        return _fitting(check_activation(requested), classes, spec)
    if described is not None:
        return _fitting(check_activation(described), classes, spec)
    library = _library_activation(module)
    if classes == 1:
        return library if library == "none" else "sigmoid"
    return library or "softmax"


def _fitting(activation: Activation, classes: int, spec: str) -> Activation:
    if activation == "softmax" and classes == 1:
        raise ModelError(
            f"{spec} has one logit, whose softmax is 1 for every image; use activation='sigmoid' "
            "(a binary classifier) or 'none' (a regression)."
        )
    return activation


def _library_activation(module: nn.Module) -> Activation | None:
    problem = getattr(getattr(module, "config", None), "problem_type", None)
    if isinstance(problem, str) and problem in _PROBLEMS:
        return _PROBLEMS[problem]
    config = getattr(module, "pretrained_cfg", None)
    if not isinstance(config, Mapping):
        return None
    if config.get("activation") is not None:
        return check_activation(config["activation"])
    return _PROBLEMS.get(_text(config.get("problem_type")))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def check_no_activation(requested: object, spec: str) -> None:
    """See that no activation is requested of a model that compares images with text.

    Raises:
        ModelError: if one is.
    """
    if requested is not None:
        raise ModelError(
            f"{spec} compares images with text and has no classes, so activation={requested!r} "
            "does not fit; its prompts have the probabilities that the model was trained with."
        )
