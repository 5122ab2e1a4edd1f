"""The parts of an unmodified module that an explanation follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.tap.logits import as_logits


@dataclass(frozen=True)
class BlockArguments:
    """How a block was called in a forward, apart from its tokens.

    Args:
        args: positional arguments after the tokens.
        kwargs: keyword arguments.
        listed: whether the tokens were the only entry of a list.
        name: the tokens' keyword, if they were a keyword argument.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    listed: bool = False
    name: str | None = None


def run_on_tokens(block: nn.Module, tokens: Tensor, arguments: BlockArguments) -> Any:
    """The usual step: a block called with tokens alone, without its other arguments."""
    if arguments.name is not None:
        return block(**{arguments.name: tokens})
    return block([tokens] if arguments.listed else tokens)


def run_with_arguments(block: nn.Module, tokens: Tensor, arguments: BlockArguments) -> Any:
    """A step with all other arguments that the block had in the forward."""
    if arguments.name is not None:
        return block(**{arguments.name: tokens}, **arguments.kwargs)
    return block([tokens] if arguments.listed else tokens, *arguments.args, **arguments.kwargs)


STEPS = (run_on_tokens, run_with_arguments)
"""Ways to run a block on few tokens."""


def call_module(module: nn.Module, images: Tensor) -> Any:
    """The usual forward: the logits among what a module returns."""
    return as_logits(module(images))


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
        at_input: whether the head averages the module's input, not its output.
        flat: turns that tensor into tokens (B, N, D).
        call: which of the module's calls in one forward, as an index.
    """

    module: nn.Module
    at_input: bool = False
    flat: Callable[[Tensor], Tensor] = as_sequence
    call: int = -1


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The parts of a module that an explanation follows.

    Args:
        readout: how the class is read, in words: "class token", "mean of patch tokens", …
        blocks: the transformer blocks that relate the readout to the spatial tokens, in order;
            none where only the last stage's readout is followed (windowed models). Of a block
            from `torch.compile` the original is kept.
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
    step: Callable[[nn.Module, Tensor, BlockArguments], Any] = run_on_tokens
    pool: Pool | None = None
    forward: Callable[[nn.Module, Tensor], Any] = call_module
    reads: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        blocks = tuple(getattr(block, "_orig_mod", block) for block in self.blocks)
        object.__setattr__(self, "blocks", blocks)
        if not self.reads and self.blocks:
            object.__setattr__(self, "reads", (len(self.blocks) - 1,))
