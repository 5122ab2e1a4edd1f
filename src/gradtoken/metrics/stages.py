"""The parameters that a model's output depends on, from the output down to the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.models import Model


def stages(
    model: Model, images: Float[Tensor, "batch 3 height width"]
) -> list[tuple[str, list[nn.Parameter]]]:
    """The head, each block from the last to the first, and the embedding.

    They are read from the graph of the output, not from names. The head is all that the output
    depends on behind the blocks: norms, pools, projections and every linear layer of several heads.
    Parameters that the output does not depend on, such as those of a text side, are in none of
    them.

    Args:
        model: whose parameters all require gradients.
        images: preprocessed; the first is run through the model.

    Returns:
        "head" (if it has parameters), "block L-1" to "block 0", and "embedding": all that is left.
        A parameter of several stages is in the first of them.
    """
    blocks, image = model.anatomy.blocks, images[:1].to(model.device, model.dtype).clone()
    entering: list[Tensor] = []

    def keep(_: nn.Module, args: Any, kwargs: Any) -> None:
        entering.append(
            next(value for value in (*args, *kwargs.values()) if torch.is_tensor(value))
        )

    with model.evaluating(), torch.inference_mode(False), torch.enable_grad():
        handle = blocks[0].register_forward_pre_hook(keep, with_kwargs=True)
        with _hooked([handle]):
            used = _reached(model, model.anatomy.forward(model.module, image))
        before = _reached(model, entering[0])
        handles = [block.register_forward_hook(_cut) for block in blocks]
        with _hooked(handles):
            behind = _reached(model, model.anatomy.forward(model.module, image))
    inside = {id(p) for block in blocks for p in block.parameters()}
    named = [("head", [p for p in behind if id(p) not in inside | {id(b) for b in before}])]
    for index in range(len(blocks) - 1, -1, -1):
        named.append((f"block {index}", list(blocks[index].parameters())))
    named.append(("embedding", used))
    return list(_without_repeats(named, {id(p) for p in used}))


def _without_repeats(
    named: Sequence[tuple[str, list[nn.Parameter]]], used: set[int]
) -> Iterator[tuple[str, list[nn.Parameter]]]:
    """Each used parameter in the first stage that has it; no head without parameters."""
    remaining = set(used)
    for name, parameters in named:
        own = [p for p in parameters if id(p) in remaining]
        remaining -= {id(p) for p in own}
        if own or name != "head":
            yield name, own


def _reached(model: Model, output: Tensor) -> list[nn.Parameter]:
    """The parameters that the graph of a tensor reaches."""
    parameters = list(model.module.parameters())
    if not output.requires_grad:
        return []
    grads = torch.autograd.grad(output.sum(), parameters, allow_unused=True, retain_graph=True)
    return [p for p, grad in zip(parameters, grads, strict=True) if grad is not None]


def _cut(_: nn.Module, args: Any, output: Any) -> Any:
    """A block's output, detached from the graph."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, (tuple, list)):
        return type(output)(_cut(_, args, part) for part in output)
    return output


@contextmanager
def _hooked(handles: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
