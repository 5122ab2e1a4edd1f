"""The effect of attention and MLP on each token of each block, by the model's own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.precision import wide
from gradtoken.tap.anatomy import run_with_arguments
from gradtoken.tap.attention_tap import SelfAttention
from gradtoken.tap.block_io import output_tokens
from gradtoken.tap.norms import Norms
from gradtoken.trace.trace import Trace


@dataclass(frozen=True)
class Sublayers:
    """The tokens of one block before and after each of its sublayers.

    Args:
        entering: the block's input.
        written: W_o v_i, what attention adds to token i if it attends to itself alone (with the
            projection's bias and layer scale).
        middle: after attention is added.
        leaving: after the MLP is added.
    """

    entering: Float[Tensor, "batch tokens dim"]
    written: Float[Tensor, "batch tokens dim"]
    middle: Float[Tensor, "batch tokens dim"]
    leaving: Float[Tensor, "batch tokens dim"]


def sublayers(
    trace: Trace, entering: Sequence[Float[Tensor, "batch tokens dim"]]
) -> list[Sublayers]:
    """Run each block twice: unchanged, and with every token attending to itself alone.

    Args:
        trace: the recorded forward of a model whose blocks attend from token to token.
        entering: the tokens entering each block.

    Raises:
        MethodError: if the blocks are not pre-norm.
    """
    results, model = [], trace.model
    with model.evaluating(), torch.no_grad():
        for block, arguments, tokens in zip(
            model.anatomy.blocks, trace.block_record.arguments, entering, strict=True
        ):
            with Norms(block, copies=model.writes_in_place) as norms:
                leaving = output_tokens(
                    run_with_arguments(block, model.writable(tokens), arguments)
                )
            with Norms(block, copies=model.writes_in_place) as alone, SelfAttention():
                run_with_arguments(block, model.writable(tokens), arguments)
            written = wide(alone.middle()) - wide(tokens)
            parts = (tokens, written, norms.middle(), leaving)
            results.append(Sublayers(*(wide(part) for part in parts)))
    return results
