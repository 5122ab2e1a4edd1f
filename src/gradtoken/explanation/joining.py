"""Explanations of some images each, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from gradtoken.explanation.explanation import Explanation
from gradtoken.images.boxes import Boxes
from gradtoken.images.source import Source
from gradtoken.targets import Targets


def joined(parts: Sequence[Explanation], sources: Sequence[Source], boxes: Boxes) -> Explanation:
    """Explanations of some images each, by one method on one model, as one."""
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
