"""Where in an unmodified module the things happen that explanations need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.tap.logits import as_logits


def alone(block: nn.Module, tokens: Tensor, given: Given) -> Any:
    """The usual step: a block called on nothing but tokens, without what is for all positions."""
    if given.name is not None:
        return block(**{given.name: tokens})
    return block([tokens] if given.listed else tokens)


def as_given(block: nn.Module, tokens: Tensor, given: Given) -> Any:
    """A step with whatever else the block was given in the forward."""
    if given.name is not None:
        return block(**{given.name: tokens}, **given.kwargs)
    return block([tokens] if given.listed else tokens, *given.args, **given.kwargs)


STEPS = (alone, as_given)
"""Ways to run a block on few tokens."""


def call(module: nn.Module, images: Tensor) -> Any:
    """The usual forward: the logits among what a module returns."""
    return as_logits(module(images))


@dataclass(frozen=True)
class Given:
    """What a block was called with beside its tokens, whether these came in a list, and their name
    if they came as a keyword."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    listed: bool = False
    name: str | None = None


def as_sequence(features: Tensor) -> Tensor:
    """Features that are a token sequence (B, N, D) already."""
    return features


def channels_last(features: Float[Tensor, "batch h w dim"]) -> Float[Tensor, "batch tokens dim"]:
    """A map with its channels last as tokens."""
    return features.flatten(1, 2)


def channels_first(features: Float[Tensor, "batch dim h w"]) -> Float[Tensor, "batch tokens dim"]:
    """A map with its channels first as tokens."""
    return features.flatten(2).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Pool:
    """Where the head averages tokens: at the output (or the input) of `module`.

    Args:
        module: the module.
        at_input: whether the head averages what enters the module, not what leaves it.
        flat: turns what is there into tokens (B, N, D).
        call: which of the module's calls in one forward, as an index.
    """

    module: nn.Module
    at_input: bool = False
    flat: Callable[[Tensor], Tensor] = as_sequence
    call: int = -1


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What a family file tells about a module.

    Args:
        readout: how the class is read, in words: "class token", "mean of patch tokens", …
        blocks: the transformer blocks that relate the readout to the spatial tokens, in order;
            none where only the last stage's readout is followed (windowed models). Of one from
            `torch.compile` the original is kept.
        attends: whether those blocks attend from token to token (XCiT's do so between channels,
            CaiT's mix heads), so that their attention can be read.
        step: runs one block on the readout tokens alone, (rows, R, D) to the same.
        pool: where tokens are averaged, or None.
        forward: module and pixels (B, C, H, W) to the output (B, C).
        reads: indices of the blocks whose readout tokens the head reads, in order; empty for the
            last one alone.
    """

    readout: str
    blocks: tuple[nn.Module, ...]
    attends: bool = True
    step: Callable[[nn.Module, Tensor, Given], Any] = alone
    pool: Pool | None = None
    forward: Callable[[nn.Module, Tensor], Any] = call
    reads: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        blocks = tuple(getattr(block, "_orig_mod", block) for block in self.blocks)
        object.__setattr__(self, "blocks", blocks)
        if not self.reads and self.blocks:
            object.__setattr__(self, "reads", (len(self.blocks) - 1,))
