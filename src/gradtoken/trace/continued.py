"""The rest of a forward, run by the model's own code from other tokens."""

from __future__ import annotations

import threading
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import NotSupportedError
from gradtoken.precision import wide
from gradtoken.tap.block_io import (
    block_tokens,
    output_tokens,
    with_block_tokens,
    with_output_tokens,
)
from gradtoken.trace.libra import run_with_gradient
from gradtoken.trace.trace import Trace


def logits_from(
    trace: Trace,
    image: Float[Tensor, "1 channels height width"],
    block: int,
    tokens: Float[Tensor, "rows tokens dim"],
    *,
    libra: bool = False,
) -> Float[Tensor, "rows classes"]:
    """The model's output for other tokens at one place of a forward, each row as one image.

    Args:
        trace: a record with the model.
        image: what the model runs on up to that place; its other blocks see the rows.
        block: 0 to L: the tokens enter this block, or leave the last one where it is L.
        tokens: the other tokens.
        libra: whether the backward pass is LibraGrad's.

    Raises:
        NotSupportedError: if the model does not take other tokens there.
    """
    model, thread, depth = trace.model, threading.get_ident(), trace.depth

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        # torch can call it without keywords in a thread that runs the model while it is removed
        if threading.get_ident() != thread:
            return None
        own, _arguments = block_tokens(args, kwargs or {})
        return with_block_tokens(args, kwargs or {}, model.writable(tokens.to(own.dtype)))

    def leave(_: Any, _args: Any, output: Any) -> Any:
        if threading.get_ident() != thread:
            return None
        own = output_tokens(output)
        return with_output_tokens(output, model.writable(tokens.to(own.dtype)))

    if block < depth:
        module = model.anatomy.blocks[block]
        handle = module.register_forward_pre_hook(enter, with_kwargs=True)
    else:
        handle = model.anatomy.blocks[-1].register_forward_hook(leave)
    place = "the output of the last block" if block == depth else f"the input of block {block}"
    try:
        logits: Tensor = wide(run_with_gradient(model, image, libra=libra))
    except (torch.OutOfMemoryError, NotSupportedError):
        raise
    except RuntimeError as error:
        raise NotSupportedError(
            f"replaces {place} by other tokens, which {model.spec} "
            f"does not take ({str(error).splitlines()[0]}); use gradtoken."
        ) from None
    finally:
        handle.remove()
    if len(logits) != len(tokens):
        raise NotSupportedError(
            f"replaces {place} by the tokens of {len(tokens)} images, and {model.spec} returned "
            f"the output of {len(logits)}; use gradtoken."
        )
    return logits
