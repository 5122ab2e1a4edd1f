"""What every target is: one scalar of a model's output."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

from gradtoken.targets.activation import Activation
from gradtoken.targets.labels import Labels

Logits: TypeAlias = Float[Tensor, "*rows classes"]
Scores: TypeAlias = Float[Tensor, "*rows"]


class Target(ABC):
    """One thing to explain: a scalar of the logits."""

    @abstractmethod
    def score(self, logits: Logits) -> Scores:
        """The scalar y for each row of logits: (…, C) -> (…)."""

    @abstractmethod
    def label(self, labels: Labels) -> str:
        """What to call it for people."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The target as plain data, for manifests."""

    def classes(self) -> tuple[int, ...]:
        """The ids of the classes it speaks of."""
        return ()

    def terms(self) -> dict[int, float] | None:
        """The weight of each logit in y where y is a weighted sum of logits, else None."""
        return None

    def probability(self, logits: Logits, activation: Activation) -> Scores:
        """The probability of the class explained.

        Args:
            logits: (…, C).
            activation: the model's.

        Returns:
            (…) in 0 to 1; NaN where the target is no class or the outputs are no probabilities.
        """
        return logits.new_full(logits.shape[:-1], math.nan)
