"""All classes of an image above a probability as its targets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import TargetError
from gradtoken.targets.activation import Activation, probabilities
from gradtoken.targets.classes import ClassTarget
from gradtoken.targets.labels import Labels


@dataclass(frozen=True)
class Above:
    """The classes of each image whose probability is above `probability`, the most likely first.

    Args:
        probability: from 0 up to, but not, 1.
        finer: alpha and count of FinerCAM's target, where each class is set against its nearest.
    """

    probability: float
    finer: tuple[float, int] | None = None

    def rows(
        self, logits: Float[Tensor, "batch classes"], activation: Activation
    ) -> list[list[ClassTarget]]:
        """The targets of each image; an empty list where no class is above.

        Args:
            logits: of the model, (B, C).
            activation: of the model.

        Raises:
            TargetError: where the outputs are no probabilities.
        """
        if activation == "none":
            raise TargetError(
                f"above({self.probability:g}) needs probabilities, and the outputs of this model "
                "are none (activation='none'); name the classes, or take the first ones by top_k."
            )
        ordered = probabilities(logits, activation).sort(dim=-1, descending=True, stable=True)
        counts = (ordered.values > self.probability).sum(-1).tolist()
        indices = ordered.indices.tolist()
        return [
            [ClassTarget(index) for index in row[:count]]
            for row, count in zip(indices, counts, strict=True)
        ]

    def absence(
        self, logits: Float[Tensor, " classes"], activation: Activation, labels: Labels
    ) -> str:
        """The message for an image without such a class.

        Args:
            logits: of the image, (C,).
            activation: of the model.
            labels: the names of its classes.
        """
        largest, index = probabilities(logits, activation).max(-1)
        name = labels[int(index)].split(",")[0]
        return (
            f"no class has a probability above {self.probability:g}; the largest is "
            f"{float(largest):.3f} ({name})."
        )


def above(probability: float) -> Above:
    """All classes of an image whose probability, by the model's activation, is above a number.

    Images then have different numbers of targets, which `explain_each` supports and `explain` of
    several images does not.

    Args:
        probability: from 0 up to, but not, 1.

    Raises:
        TargetError: another number, or none.

    Example:
        >>> for explanation in gradtoken.explain_each(model, paths, gradtoken.above(0.5)):
        ...     explanation.labels[0]
    """
    return Above(_checked(probability))


def _checked(probability: Any) -> float:
    number = isinstance(probability, (int, float)) and not isinstance(probability, bool)
    if not number or not math.isfinite(probability) or not 0 <= probability < 1:
        raise TargetError(
            f"above({probability!r}): a probability is from 0 up to, but not, 1, as in above(0.5)."
        )
    return float(probability)
