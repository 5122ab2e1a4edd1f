"""Reading text, for models that compare pictures with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PromptBatch:
    """Unit embeddings of prompts, and how similarity becomes a logit: scale * cosine + bias.

    `independent` says that each prompt has a probability of its own (sigmoid, as in SigLIP);
    otherwise they share one (softmax, as in CLIP).
    """

    embeddings: Float[Tensor, "prompts dim"]
    scale: float
    bias: float = 0.0
    independent: bool = False


class Prompts(Protocol):
    """The text side of a model."""

    def __call__(self, texts: Sequence[str]) -> PromptBatch:
        """The embeddings of some prompts, to compare with the model's image embeddings."""
