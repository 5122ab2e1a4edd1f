"""The activation that turns a model's logits into probabilities."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import ModelError, TargetError

Activation: TypeAlias = Literal["softmax", "sigmoid", "none"]
"""Exclusive classes, independent classes, or outputs that are no probabilities (regression)."""


def check_activation(activation: object) -> Activation:
    """An activation by its name.

    Args:
        activation: "softmax", "sigmoid" or "none".

    Raises:
        ModelError: another value.
    """
    for known in get_args(Activation):
        if isinstance(activation, str) and activation == known:
            checked: Activation = known
            return checked
    raise ModelError(
        f"activation is {activation!r}; it can be 'softmax' (one class of all), 'sigmoid' (each "
        "class by itself) or 'none' (outputs that are no probabilities)."
    )


def probabilities(
    logits: Float[Tensor, "*rows classes"], activation: Activation
) -> Float[Tensor, "*rows classes"]:
    """The probability of every class.

    Args:
        logits: (…, C).
        activation: of the model.

    Returns:
        (…, C) in 0 to 1; NaN for "none".
    """
    if activation == "none":
        return logits.new_full(logits.shape, math.nan)
    return logits.sigmoid() if activation == "sigmoid" else logits.softmax(-1)


def log_probabilities(
    logits: Float[Tensor, "*rows classes"], activation: Activation
) -> Float[Tensor, "*rows classes"]:
    """The logarithm of every class's probability, without underflow.

    Args:
        logits: (…, C).
        activation: of the model.

    Raises:
        TargetError: for "none", whose outputs are no probabilities.
    """
    require_probabilities(activation)
    return F.logsigmoid(logits) if activation == "sigmoid" else logits.log_softmax(-1)


def require_probabilities(activation: Activation) -> None:
    """Check that a model's outputs have probabilities.

    Raises:
        TargetError: for "none".
    """
    if activation == "none":
        raise TargetError(
            "log_prob needs a probability, and the outputs of this model are none "
            "(activation='none'); explain the class itself, or load the model with its activation."
        )
