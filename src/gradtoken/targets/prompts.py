"""The text side of models that compare images with text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PromptBatch:
    """Unit embeddings of prompts; a prompt's logit is scale * cosine + bias.

    If `independent`, each prompt has its own probability (sigmoid, as in SigLIP); otherwise the
    probabilities of all prompts sum to 1 (softmax, as in CLIP).
    """

    embeddings: Float[Tensor, "prompts dim"]
    scale: float
    bias: float = 0.0
    independent: bool = False


class Prompts(Protocol):
    """A model's text encoder."""

    def __call__(self, texts: Sequence[str]) -> PromptBatch:
        """The embeddings of prompts, to be compared with the model's image embeddings."""
