"""The base class of targets: a scalar of a model's output."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias

from jaxtyping import Float
from torch import Tensor

from gradtoken.targets.activation import Activation
from gradtoken.targets.labels import Labels

Logits: TypeAlias = Float[Tensor, "*rows classes"]
Scores: TypeAlias = Float[Tensor, "*rows"]


class Target(ABC):
    """A scalar of the logits, to be explained."""

    two_sided: ClassVar[bool] = False
    """Whether it sets one thing against another, so that evidence for either counts alike."""

    @abstractmethod
    def score(self, logits: Logits) -> Scores:
        """The scalar y for each row of logits: (…, C) -> (…)."""

    @abstractmethod
    def label(self, labels: Labels) -> str:
        """Its name for people."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The target as plain data, for manifests."""

    def classes(self) -> tuple[int, ...]:
        """The ids of its classes."""
        return ()

    def terms(self) -> dict[int, float] | None:
        """The weight of each logit, by class id, if y is a weighted sum of logits; else None."""
        return None

    def probability(self, logits: Logits, activation: Activation) -> Scores:
        """The probability of the target's class.

        Args:
            logits: (…, C).
            activation: the model's.

        Returns:
            (…) in 0 to 1; NaN where the target is no class or the outputs are no probabilities.
        """
        return logits.new_full(logits.shape[:-1], math.nan)
