"""Padding of a batch whose images have different numbers of targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradtoken.explanation.explanation import Explanation
from gradtoken.targets import ClassTarget, Target, Targets


def pad_targets(rows: Sequence[Sequence[Target]]) -> Targets:
    """Pad each row of targets to the length of the longest.

    Shorter rows repeat their first target, which changes no map of the others. An empty row gets
    class 0; its maps are to be left out.

    Args:
        rows: one for each image, at least one of them not empty.
    """
    longest = max(len(row) for row in rows)
    fills = [row[0] if row else ClassTarget(0) for row in rows]
    return Targets(
        [[*row, *[fill] * (longest - len(row))] for row, fill in zip(rows, fills, strict=True)]
    )


def trim_targets(explanation: Explanation, count: int) -> Explanation:
    """The explanation of an image, with its first `count` targets only."""
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
