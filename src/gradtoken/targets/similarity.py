"""The similarity of an image and a prompt as a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.targets.activation import Activation
from gradtoken.targets.base import Logits, Scores, Target
from gradtoken.targets.labels import Labels
from gradtoken.targets.prompts import PromptBatch


@dataclass(frozen=True, eq=False)
class Similarity(Target):
    """The cosine of the embeddings of an image and of prompt `index` of a batch."""

    prompt: str
    index: int
    batch: PromptBatch

    def _cosines(self, embedding: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows prompts"]:
        prompts = self.batch.embeddings.to(embedding.device, embedding.dtype)
        return F.normalize(embedding, dim=-1) @ prompts.T

    def score(self, logits: Logits) -> Scores:
        return self._cosines(logits)[..., self.index]

    def label(self, labels: Labels) -> str:
        return self.prompt

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "text", "prompt": self.prompt}

    def probability(self, logits: Logits, activation: Activation) -> Scores:
        """Among the prompts of the batch (CLIP), or of this prompt alone (SigLIP).

        The prompts' own rule holds, whatever the activation.
        """
        values = self._cosines(logits) * self.batch.scale + self.batch.bias
        shares = values.sigmoid() if self.batch.independent else values.softmax(-1)
        return shares[..., self.index]


@dataclass(frozen=True, eq=False)
class SimilarityContrast(Target):
    """Why prompt a and not prompt b: the difference of their similarities with the image."""

    two_sided: ClassVar[bool] = True

    a: Similarity
    b: Similarity

    def score(self, logits: Logits) -> Scores:
        return self.a.score(logits) - self.b.score(logits)

    def label(self, labels: Labels) -> str:
        return f"{self.a.prompt} vs {self.b.prompt}"

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "text_contrast", "a": self.a.prompt, "b": self.b.prompt}
