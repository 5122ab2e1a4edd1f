"""A function of the output as a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import TargetError
from gradtoken.targets.base import Logits, Scores, Target
from gradtoken.targets.labels import Labels


@dataclass(frozen=True)
class OutputTarget(Target):
    """A function of an image's output: logits (C,) to a scalar tensor."""

    function: Callable[[Float[Tensor, " classes"]], Float[Tensor, ""]]

    def score(self, logits: Logits) -> Scores:
        rows = [self._row_score(row) for row in logits.reshape(-1, logits.shape[-1])]
        return torch.stack(rows).reshape(logits.shape[:-1])

    def _row_score(self, row: Float[Tensor, " classes"]) -> Float[Tensor, ""]:
        value = self.function(row)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise TargetError(
                f"a target function gets the logits (C,) of one image and must return one scalar "
                f"tensor, {self._name} returned {got}."
            )
        if value.is_complex():
            raise TargetError(
                f"the target function {self._name} returned a complex number; return a real one."
            )
        if row.requires_grad and not value.requires_grad:
            raise TargetError(
                f"the value of the target function {self._name} does not depend on the output "
                "differentiably, so there is no gradient to explain it with."
            )
        return value.reshape(())

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def label(self, labels: Labels) -> str:
        return self._name

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "function", "name": self._name}
