"""The output token that depends on each input site, by a few backward passes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradtoken.precision import wide

OF_PIXELS, OF_TOKENS = 0.1, 1e-3
"""How far a code may be from +1 or -1 and still be read: of pixels, which a little of others may
blur, and of tokens."""


@dataclass(frozen=True)
class Owners:
    """For each site of an input (a pixel, a token), the one output token that depends on it.

    Args:
        token: that token's position; NONE where no token depends on the site, MIXED where several
            do.
    """

    token: Int[Tensor, "*sites"]

    NONE = -1
    MIXED = -2

    @property
    def clean(self) -> float:
        """Of the sites that any token depends on, the share that one token depends on alone."""
        read = self.token != self.NONE
        return float((self.token >= 0).sum() / read.sum().clamp_min(1))


def owners(
    outputs: Float[Tensor, "1 tokens dim"],
    inputs: Tensor,
    *,
    channels: int = -1,
    near: float = OF_TOKENS,
    clean: float = 0.5,
) -> Owners:
    """Find the owner of every site by backward passes that number the output tokens in binary.

    One pass goes back from a random projection of all tokens; in each further pass the sign of a
    token's projection is a digit of its number. Where one token alone depends on a site, the
    gradient there changes sign with that digit, and else not at all. That takes 1 + log2(tokens)
    passes.

    Args:
        outputs: tokens with a graph to `inputs`, which is kept.
        inputs: (1, …) with one dimension of channels, over which a site's gradient is taken.
        channels: that dimension.
        near: how far a code may be from +1 or -1 and still be read.
        clean: where fewer sites than this share of those that any token depends on can depend on
            one token alone, the rest of the code is not read.
    """
    count = outputs.shape[1]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 2, outputs.shape[1:], generator=generator)
    signs = (2 * drawn - 1).to(outputs.device, outputs.dtype)
    plain = _back(outputs, signs, inputs)
    size = plain.square().sum(channels)[0]
    read = size > 0
    token = torch.zeros(size.shape, dtype=torch.long, device=size.device)
    mixed = torch.zeros_like(read)
    numbers = torch.arange(count, device=outputs.device)
    for digit in range((count - 1).bit_length()):
        code = (2 * ((numbers >> digit) & 1) - 1).to(outputs.dtype)
        changed = _back(outputs, signs * code[:, None], inputs)
        answer = (changed * plain).sum(channels)[0] / size.clamp_min(torch.finfo(size.dtype).tiny)
        mixed |= (answer.abs() - 1).abs() > near
        token += (answer > 0).long() << digit
        if _share(mixed, read) > 1 - clean:
            break
    token[mixed | (token >= count)] = Owners.MIXED
    token[~read] = Owners.NONE
    return Owners(token)


def _back(outputs: Tensor, vector: Tensor, inputs: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(
        outputs, inputs, vector[None], retain_graph=True, allow_unused=True
    )
    return torch.zeros_like(wide(inputs)) if grad is None else wide(grad)


def _share(some: Bool[Tensor, "*sites"], among: Bool[Tensor, "*sites"]) -> float:
    return float((some & among).sum() / among.sum().clamp_min(1))
