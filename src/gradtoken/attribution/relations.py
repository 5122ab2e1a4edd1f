"""The relations of the decoupled readout to the tokens, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradtoken.images.patch_grid import pick
from gradtoken.precision import full_precision
from gradtoken.trace.readout import Readout

Relevance: TypeAlias = Float[Tensor, "batch targets tokens"]
ChannelWeight: TypeAlias = Literal["content", "product"] | None
Rectify: TypeAlias = Literal["head", "layer", "final"] | None


@dataclass(frozen=True)
class Relations:
    """How a step's relations become relevance; the options are those of `GradToken`."""

    beta: float
    channel_weight: ChannelWeight
    rectify: Rectify
    slope: float
    centre: bool

    def relevance(
        self, step: Readout, spatial: int, two_sided: Bool[Tensor, "batch targets"]
    ) -> Relevance:
        """Sum over heads and rows of a^beta phi(<gamma, v_i>) for each token; spatial ones last.

        Args:
            step: attention, values, output and each target's gradient.
            spatial: N, the number of spatial tokens.
            two_sided: targets whose relations are not rectified by head.
        """
        with full_precision(step.gradient):
            weight, relation = self._weighted(step)
            if self.rectify != "head":
                signed = _summed(weight, relation, step)
                return signed.clamp_min(0) if self.rectify == "layer" else signed
            support = _summed(weight, relation.clamp_min(0), step)
            if self.centre:
                prefix, patches = support[..., :-spatial], support[..., -spatial:]
                support = torch.cat([prefix, patches - patches.mean(-1, keepdim=True)], dim=-1)
            slope = two_sided.to(support).clamp_min(self.slope)[..., None]
            return torch.lerp(support, _summed(weight, relation, step), slope)

    def supporting(self, step: Readout) -> Relevance:
        """The same sum of the positive relations alone."""
        with full_precision(step.gradient):
            weight, relation = self._weighted(step)
            return _summed(weight, relation.clamp_min(0), step)

    def _weighted(
        self, step: Readout
    ) -> tuple[
        Float[Tensor, "batch heads rows tokens"], Float[Tensor, "batch heads targets rows tokens"]
    ]:
        """a^beta and <gamma, v_i>."""
        gamma = step.gradient
        if self.channel_weight == "content":
            gamma = gamma * step.output.abs()[:, :, None]
        elif self.channel_weight == "product":
            gamma = gamma * step.output[:, :, None]
        relation = gamma.flatten(2, 3) @ step.value.transpose(-2, -1)
        weight = step.attention if self.beta == 1 else step.attention**self.beta
        return weight, relation.unflatten(2, gamma.shape[2:4])


def _summed(weight: Tensor, relation: Tensor, step: Readout) -> Relevance:
    return _spatial_last(torch.einsum("bhrn,bhkrn->bkn", weight, relation), step.order)


def _spatial_last(shares: Relevance, order: tuple[int, ...] | None) -> Relevance:
    """Tokens with the spatial ones last, in reading order."""
    if order is None:
        return shares
    spatial = set(order)
    others = [i for i in range(shares.shape[-1]) if i not in spatial]
    return pick(shares, [*others, *order], shares.shape[-1])
