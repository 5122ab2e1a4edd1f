"""Concatenation of explanations of several images each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from gradtoken.explanation.explanation import Explanation
from gradtoken.images.source import Boxes, Source
from gradtoken.targets import Targets


def concatenate(
    parts: Sequence[Explanation], sources: Sequence[Source], boxes: Boxes
) -> Explanation:
    """Concatenate explanations by one method on one model.

    Args:
        parts: each of some images, of the same shape and number of targets.
        sources: of all images.
        boxes: of all images.
    """
    return replace(
        parts[0],
        tokens=torch.cat([part.tokens for part in parts]),
        targets=Targets([row for part in parts for row in part.targets.rows]),
        labels=[row for part in parts for row in part.labels],
        scores=torch.cat([part.scores for part in parts]),
        probabilities=torch.cat([part.probabilities for part in parts]),
        sources=sources,
        boxes=boxes,
    )
