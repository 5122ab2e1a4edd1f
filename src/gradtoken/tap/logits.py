"""The logits among what a model returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def as_logits(output: Any) -> Any:
    """The logits (B, C) among what a model returns.

    That is the output itself, its `logits`, or the only matrix in a tuple or mapping; a vector (B,)
    is one logit for each image. Anything else is returned as it is.
    """
    if hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, Mapping):
        output = output["logits"] if "logits" in output else _only_matrix(list(output.values()))
    elif isinstance(output, (tuple, list)):
        output = _only_matrix(list(output))
    if isinstance(output, Tensor) and output.ndim == 1:
        return output[:, None]
    return output


def _only_matrix(values: list[Any]) -> Any:
    matrices = [value for value in values if isinstance(value, Tensor) and value.ndim == 2]
    return matrices[0] if len(matrices) == 1 else tuple(values)
