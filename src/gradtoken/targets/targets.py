"""The K targets of each of B images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradtoken.errors import TargetError
from gradtoken.targets.activation import Activation, probabilities
from gradtoken.targets.base import Target
from gradtoken.targets.classes import ClassTarget
from gradtoken.targets.labels import Labels
from gradtoken.targets.rivals import Rivals, kind_for, parse_kind, sharpened


class Targets:
    """K targets for each of B images.

    Args:
        rows: B lists of K targets each.
    """

    def __init__(self, rows: Sequence[Sequence[Target]]) -> None:
        self.rows: tuple[tuple[Target, ...], ...] = tuple(tuple(row) for row in rows)
        if not self.rows or not self.rows[0]:
            raise TargetError("there is nothing to explain: give at least one target.")
        check_equal_counts({len(row) for row in self.rows})

    @property
    def count(self) -> int:
        """K, the number of targets of each image."""
        return len(self.rows[0])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, columns: slice) -> Targets:
        """The targets in a range of columns, for every image."""
        return Targets([row[columns] for row in self.rows])

    def scores(
        self, logits: Float[Tensor, "batch targets classes"]
    ) -> Float[Tensor, "batch targets"]:
        """y of target (b, k) on the logits [b, k]."""
        terms = [[target.terms() for target in row] for row in self.rows]
        longest = max(len(weights or ()) for row in terms for weights in row)
        if not longest or any(weights is None for row in terms for weights in row):
            return self._stacked(logits, lambda target, row: target.score(row))
        ids = [[_padded(list(term or ()), longest) for term in row] for row in terms]
        weights = [[_padded(list((term or {}).values()), longest) for term in row] for row in terms]
        at = torch.tensor(ids, device=logits.device, dtype=torch.long)
        return (
            logits.gather(-1, at) * torch.tensor(weights, dtype=logits.dtype, device=logits.device)
        ).sum(-1)

    def probabilities(
        self, logits: Float[Tensor, "batch classes"], activation: Activation
    ) -> Float[Tensor, "batch targets"]:
        """The probability of each target's class.

        Args:
            logits: of the model, (B, C).
            activation: the model's.

        Returns:
            (B, K) in 0 to 1; NaN where a target is no class or the outputs are no probabilities.
        """
        if all(isinstance(target, ClassTarget) for row in self.rows for target in row):
            ids = [[t.id for t in row if isinstance(t, ClassTarget)] for row in self.rows]
            at = torch.tensor(ids, device=logits.device)
            return probabilities(logits, activation).gather(-1, at)
        expanded = logits[:, None].expand(-1, self.count, -1)
        return self._stacked(expanded, lambda target, row: target.probability(row, activation))

    def _stacked(self, logits: Tensor, value: Callable[[Target, Tensor], Tensor]) -> Tensor:
        """`value` of each target and its logits, (B, K)."""
        return torch.stack(
            [
                torch.stack([value(t, logits[b, k]) for k, t in enumerate(row)])
                for b, row in enumerate(self.rows)
            ]
        )

    def two_sided(self, device: torch.device) -> Bool[Tensor, "batch targets"]:
        """Which targets set one thing against another."""
        return torch.tensor([[t.two_sided for t in row] for row in self.rows], device=device)

    def labels(self, labels: Labels) -> list[list[str]]:
        """Names for people, (B, K)."""
        return [[target.label(labels) for target in row] for row in self.rows]

    def sharpen(
        self, kind: str, logits: Float[Tensor, "batch classes"], activation: Activation = "softmax"
    ) -> Targets:
        """Class targets with a `target` option applied (method.md, "Options"); others unchanged.

        Args:
            kind: "auto" (by the activation), "logit" (unchanged), "log_prob", "rivals(m, w)": minus
                w (1) times the mean of the m (5) strongest other logits (unchanged if the model has
                one output), or "others": minus the mean of the image's other class targets.
            logits: of the model, (B, C).
            activation: the model's.

        Raises:
            TargetError: "others" of fewer than two classes, or "log_prob" where the outputs are no
                probabilities.
        """
        parsed = parse_kind(kind_for(kind, activation))
        if parsed == "logit":
            return self
        count = parsed.count if isinstance(parsed, Rivals) else 0
        leading = logits.detach().topk(min(count + 1, logits.shape[-1])).indices.tolist()
        rows = []
        for row, strongest in zip(self.rows, leading, strict=True):
            plain = [t.id for t in row if type(t) is ClassTarget]
            if parsed == "others" and len(set(plain)) < 2:
                raise TargetError(
                    'target="others" sets each class against the other requested ones; '
                    "give at least two classes."
                )
            rows.append(
                [
                    sharpened(t, parsed, strongest, plain, activation)
                    if type(t) is ClassTarget
                    else t
                    for t in row
                ]
            )
        return Targets(rows)


def check_equal_counts(counts: set[int]) -> None:
    """Check that all images of a result have the same number of targets.

    Raises:
        TargetError: they differ.
    """
    if len(counts) > 1:
        listed = ", ".join(map(str, sorted(counts)))
        raise TargetError(
            f"the images have different numbers of targets ({listed}), and "
            "their maps cannot be one result; take them image by image with explain_each()."
        )


def _padded(items: list[Any], length: int) -> list[Any]:
    return items + [0] * (length - len(items))
