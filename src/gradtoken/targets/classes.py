"""Targets that are classes, or set some against others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradtoken.labels import Labels
from gradtoken.targets.base import Logits, Scores, Target


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

    def probability(self, logits: Logits) -> Scores:
        return logits.softmax(-1)[..., self.id]


@dataclass(frozen=True)
class LogProb(ClassTarget):
    """The log-probability of one class, y = log softmax(z)_c."""

    def score(self, logits: Logits) -> Scores:
        return logits.log_softmax(-1)[..., self.id]

    def terms(self) -> None:
        return None

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "log_prob", "id": self.id}


@dataclass(frozen=True)
class Contrast(Target):
    """Why a and not b: y = z_a - z_b."""

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
        found = {self.id: 1.0}
        for other in self.others:
            found[other] = found.get(other, 0.0) - self.weight / len(self.others)
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": "against",
            "id": self.id,
            "others": list(self.others),
            "weight": self.weight,
        }

    def classes(self) -> tuple[int, ...]:
        return (self.id, *self.others)
