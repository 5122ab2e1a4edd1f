"""Class targets: a logit, a log-probability, and contrasts between classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from gradtoken.errors import TargetError
from gradtoken.targets.activation import (
    Activation,
    log_probabilities,
    probabilities,
    require_probabilities,
)
from gradtoken.targets.base import Logits, Scores, Target
from gradtoken.targets.labels import Labels


@dataclass(frozen=True)
class ClassTarget(Target):
    """The logit of one class, y = z_c."""

    id: int

    def score(self, logits: Logits) -> Scores:
        return logits[..., self.id]

    def terms(self) -> dict[int, float] | None:
        return {self.id: 1.0}

    def label(self, labels: Labels) -> str:
        return labels[self.id]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "logit", "id": self.id}

    def classes(self) -> tuple[int, ...]:
        return (self.id,)

    def probability(self, logits: Logits, activation: Activation) -> Scores:
        return probabilities(logits, activation)[..., self.id]


@dataclass(frozen=True)
class LogProb(ClassTarget):
    """The log-probability of one class, y = log softmax(z)_c or log sigmoid(z_c).

    `activation` says which of the two; None is the model's, filled in by `resolve`.
    """

    activation: Activation | None = None

    def of(self, activation: Activation) -> LogProb:
        """The same target with a model's activation, unless it has its own.

        Raises:
            TargetError: for "none", whose outputs are no probabilities.
        """
        chosen = self.activation or activation
        require_probabilities(chosen)
        return replace(self, activation=chosen)

    def score(self, logits: Logits) -> Scores:
        if self.activation is None:
            raise TargetError(
                f"{self!r} does not know the model's activation; use resolve(…), or say "
                "LogProb(id, 'softmax') or LogProb(id, 'sigmoid')."
            )
        return log_probabilities(logits, self.activation)[..., self.id]

    def terms(self) -> None:
        return None

    def to_dict(self) -> dict[str, Any]:
        other = {} if self.activation == "softmax" else {"activation": self.activation}
        return {"kind": "log_prob", "id": self.id, **other}


@dataclass(frozen=True)
class Contrast(Target):
    """Why a and not b: y = z_a - z_b."""

    two_sided: ClassVar[bool] = True

    a: int
    b: int

    def score(self, logits: Logits) -> Scores:
        return logits[..., self.a] - logits[..., self.b]

    def terms(self) -> dict[int, float]:
        return {self.a: 1.0, self.b: -1.0} if self.a != self.b else {self.a: 0.0}

    def label(self, labels: Labels) -> str:
        return f"{labels[self.a]} vs {labels[self.b]}"

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "contrast", "a": self.a, "b": self.b}

    def classes(self) -> tuple[int, ...]:
        return (self.a, self.b)


@dataclass(frozen=True)
class Against(ClassTarget):
    """One class against others: y = z_c - weight * mean of z over `others`."""

    others: tuple[int, ...]
    weight: float = 1.0

    def score(self, logits: Logits) -> Scores:
        return logits[..., self.id] - self.weight * logits[..., list(self.others)].mean(-1)

    def terms(self) -> dict[int, float]:
        weights = {self.id: 1.0}
        for other in self.others:
            weights[other] = weights.get(other, 0.0) - self.weight / len(self.others)
        return weights

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": "against",
            "id": self.id,
            "others": list(self.others),
            "weight": self.weight,
        }

    def classes(self) -> tuple[int, ...]:
        return (self.id, *self.others)
