"""Rivals of a class: the likeliest other classes, weighted by likelihood and by how far their
evidence lies on other patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import NotSupportedError
from gradtoken.precision import full_precision, wide
from gradtoken.targets import Targets
from gradtoken.targets.activation import Activation, log_probabilities
from gradtoken.targets.classes import ClassTarget
from gradtoken.trace.backward import Seeds

RivalWeight: TypeAlias = Literal["equal", "likelihood", "overlap"]

RIVALS: dict[Activation, int] = {"softmax": 12, "sigmoid": 0, "none": 0}
"""How many rivals a class has by default (docs/method.md, "How the default was chosen")."""


@dataclass(frozen=True)
class Competition:
    """The rivals of the class targets of some images.

    Args:
        candidates: ids of each image's likeliest classes, one more than there are rivals.
        likelihood: logarithm of the weight of each candidate before overlap.
        classes: C.
        limit: how many rivals a class has.
        by_overlap: whether rivals count as far as their evidence lies on other patches.
    """

    candidates: Int[Tensor, "batch candidates"]
    likelihood: Float[Tensor, "batch candidates"]
    classes: int
    limit: int
    by_overlap: bool

    def seeds(self) -> Seeds:
        """The gradient of each candidate's logit by the output."""
        return F.one_hot(self.candidates.T, self.classes).to(self.likelihood.dtype)

    def against(
        self,
        targets: Targets,
        seeds: Seeds,
        evidence: Callable[[Seeds], Float[Tensor, "batch targets patches"]],
    ) -> Seeds:
        """The gradient, by the output, of each target's score less the mean of its rivals' logits.

        Args:
            targets: K for each image.
            seeds: the gradients of their scores.
            evidence: the supporting evidence, in the readout's last steps, for the scores of some
                seeds.
        """
        overlap = None
        if self.by_overlap:
            maps = evidence(torch.cat([seeds, self.seeds()]))
            overlap = correlation_of_maps(maps[:, : len(seeds)], maps[:, len(seeds) :])
        return seeds - self.mean_seeds(self.weights(targets, overlap))

    def weights(
        self, targets: Targets, overlap: Float[Tensor, "batch targets candidates"] | None
    ) -> Float[Tensor, "batch targets candidates"]:
        """The weight of every candidate as a rival of each target; they sum to 1.

        Targets other than classes have no rivals, and weights of 0; so has a class whose rivals all
        have a weight of 0.

        Args:
            targets: K for each image.
            overlap: the correlation of the evidence of a target and of a candidate, or None to
                leave it out.
        """
        own = torch.tensor(
            [[t.id if type(t) is ClassTarget else -1 for t in row] for row in targets.rows],
            device=self.candidates.device,
        )
        itself = self.candidates[:, None] == own[..., None]
        unlisted = ~itself.any(-1)
        counts = ~itself & (own >= 0)[..., None]
        counts[..., self.limit :] &= ~unlisted[..., None]
        likelihood = self.likelihood[:, None].masked_fill(~counts, -torch.inf)
        largest = likelihood.amax(-1, keepdim=True)
        weights = (likelihood - largest.masked_fill(largest == -torch.inf, 0)).exp()
        if overlap is not None:
            weights = weights * (1 - overlap).clamp_min(0)
        total = weights.sum(-1, keepdim=True)
        return weights / total.where(total > 0, 1)

    def mean_seeds(self, weights: Float[Tensor, "batch targets candidates"]) -> Seeds:
        """The gradient, by the output, of each target's weighted mean of its rivals' logits."""
        batch, targets, _ = weights.shape
        seeds = weights.new_zeros(batch, targets, self.classes)
        at = self.candidates[:, None].expand(-1, targets, -1)
        return seeds.scatter_add(-1, at, weights).transpose(0, 1)


def competition(
    logits: Float[Tensor, "batch classes"],
    activation: Activation,
    *,
    rivals: int,
    weight: RivalWeight,
) -> Competition:
    """The candidates for rivals of some images' classes.

    Args:
        logits: of the model, of two classes or more.
        activation: the model's.
        rivals: m, how many other classes are rivals of a class.
        weight: see `GradToken`, rival_weight.

    Raises:
        NotSupportedError: if the rivals' probabilities are needed and there are none.
    """
    logits, classes = wide(logits.detach()), logits.shape[-1]
    top = logits.topk(min(rivals + 1, classes)).indices
    if weight == "equal":
        likelihood = torch.zeros_like(top, dtype=logits.dtype)
    elif activation == "none":
        raise NotSupportedError(
            "weights rivals by probability, and the outputs of this model are none "
            "(activation='none'); use rivals=0 or rival_weight=\"equal\"."
        )
    else:
        likelihood = log_probabilities(logits, activation).gather(-1, top) / 2
    return Competition(top, likelihood, classes, rivals, weight == "overlap")


def have_rivals(targets: Targets) -> bool:
    """Whether any target is a class, and so has rivals."""
    return any(type(target) is ClassTarget for row in targets.rows for target in row)


def correlation_of_maps(
    first: Float[Tensor, "batch targets patches"], second: Float[Tensor, "batch others patches"]
) -> Float[Tensor, "batch targets others"]:
    """The Pearson correlation of each pair of maps of an image; 0 for a constant map."""
    with full_precision(first):
        first, second = (
            F.normalize(maps - maps.mean(-1, keepdim=True), dim=-1) for maps in (first, second)
        )
        return first @ second.transpose(1, 2)
