"""Concatenation of explanations of several images each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from gradtoken.explanation.explanation import Explanation
from gradtoken.targets import Targets


def concatenate(parts: Sequence[Explanation]) -> Explanation:
    """Concatenate explanations by one method on one model.

    Args:
        parts: each of some images, of the same shape and number of targets.
    """
    if len(parts) == 1:
        return parts[0]
    sources = [source for part in parts for source in part.sources]
    return replace(
        parts[0],
        tokens=torch.cat([part.tokens for part in parts]),
        targets=Targets([row for part in parts for row in part.targets.rows]),
        labels=[row for part in parts for row in part.labels],
        scores=torch.cat([part.scores for part in parts]),
        probabilities=torch.cat([part.probabilities for part in parts]),
        sources=sources,
        boxes=parts[0].boxes.of(sources),
    )
