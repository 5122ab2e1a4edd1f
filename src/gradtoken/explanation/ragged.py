"""Images of one batch with different numbers of targets: padded inside, trimmed outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gradtoken.errors import TargetError
from gradtoken.explanation.explanation import Explanation
from gradtoken.targets import ClassTarget, Target, Targets


@dataclass(frozen=True)
class Explained:
    """What comes of a batch.

    Args:
        explanations: of all images together, or of each that has a target.
        refused: positions among all images of those without a target, and why.
    """

    explanations: list[Explanation]
    refused: list[tuple[int, TargetError]]


def padded(rows: Sequence[Sequence[Target]]) -> Targets:
    """Targets of as many columns as the longest row has.

    Shorter rows repeat their first target, which changes no map of the others. A row without a
    target gets class 0; its maps are to be left out.

    Args:
        rows: one for each image, at least one of them with a target.
    """
    most = max(len(row) for row in rows)
    fills = [row[0] if row else ClassTarget(0) for row in rows]
    return Targets(
        [[*row, *[fill] * (most - len(row))] for row, fill in zip(rows, fills, strict=True)]
    )


def trimmed(explanation: Explanation, count: int) -> Explanation:
    """An explanation of one image with its first `count` targets alone."""
    if count == explanation.targets.count:
        return explanation
    return replace(
        explanation,
        tokens=explanation.tokens[:, :count],
        targets=explanation.targets[:count],
        labels=[row[:count] for row in explanation.labels],
        scores=explanation.scores[:, :count],
        probabilities=explanation.probabilities[:, :count],
    )
