"""Watching one forward: where it is, what enters the blocks, and a graph from the last one on.

The forward itself keeps no graph. When the last block has run, gradients are switched on and its
output becomes a leaf, so whatever the model does from there to its output (norms, pools,
projections, heads) is differentiated by the model's own code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradtoken.models.anatomy import Anatomy, Given
from gradtoken.tap import TAIL, AttentionCall, Recorder


@dataclass
class Seen:
    """What a forward showed.

    `inputs`: tokens (B, N, D) entering some blocks, by index. `given`: what each block was called
    with beside them. `last`: what left the last block, `pooled`: what the head averages, as the
    model shapes it.
    """

    inputs: dict[int, Tensor] = field(default_factory=dict)
    given: list[Given] = field(default_factory=list)
    last: Tensor | None = None
    pooled: Tensor | None = None


@contextmanager
def watching(
    anatomy: Anatomy,
    recorder: Recorder,
    *,
    tail_graph: bool,
    every_block: bool = False,
    start: int = 0,
) -> Iterator[Seen]:
    """Follow the forward that this thread runs inside the `with` block.

    With `tail_graph`, what leaves the last block (or, without blocks, what is pooled) becomes a
    leaf and gradients are on from there; call it under `torch.no_grad()`, which ends that too.
    With `every_block`, the tokens entering each block are kept, not only those of a few. Blocks
    before `start` are of no interest to the recorder.
    """
    seen = Seen()
    thread = threading.get_ident()
    blocks, pool = anatomy.blocks, anatomy.pool

    def enter(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
            # torch can call it without keywords in a thread that runs the model while it is removed
            if threading.get_ident() != thread:
                return None
            recorder.place = index if anatomy.attends and index >= start else None
            more = dict(kwargs or {})
            named = not args
            tokens = more.pop("hidden_states") if named else args[0]
            recorder.tokens = tokens.shape[1]
            seen.given.append(Given(args[1:], dict(more)))
            if not every_block and index not in (start, affinity_block(len(blocks))):
                return None
            seen.inputs[index] = tokens
            following = recorder.following(tokens)
            if named:
                return args, {**more, "hidden_states": following}
            return (following, *args[1:]), more

        return hook

    def leave(_: nn.Module, args: Any, output: Any) -> Any:
        if threading.get_ident() != thread:
            return None
        recorder.place = TAIL
        seen.last = first(output)
        if not tail_graph:
            return None
        seen.last, following = _leaf(seen.last)
        return (following, *output[1:]) if isinstance(output, tuple) else following

    def pooled(_: nn.Module, args: tuple[Any, ...], output: Any = None) -> Any:
        if threading.get_ident() != thread:
            return None
        seen.pooled = args[0] if output is None else first(output)
        if tail_graph and not blocks:
            recorder.place = TAIL
            seen.pooled, following = _leaf(seen.pooled)
        else:
            following = recorder.following(seen.pooled)
        if output is None:
            return (following, *args[1:])
        return (following, *output[1:]) if isinstance(output, tuple) else following

    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            stack.callback(block.register_forward_pre_hook(enter(index), with_kwargs=True).remove)
        if blocks:
            stack.callback(blocks[-1].register_forward_hook(leave).remove)
        if pool is not None and pool.at_input:
            stack.callback(pool.module.register_forward_pre_hook(pooled).remove)
        elif pool is not None:
            stack.callback(pool.module.register_forward_hook(pooled).remove)
        yield seen


def on_the_way(calls: list[AttentionCall], output: Tensor) -> list[AttentionCall]:
    """Without the attention after the last block that the output does not depend on."""
    tail = [call for call in calls if call.place == TAIL and _has_graph(call.output)]
    if not tail:
        return [call for call in calls if call.place != TAIL]
    at = [call.output for call in tail if call.output is not None]
    with torch.enable_grad():
        found = torch.autograd.grad(output.sum(), at, retain_graph=True, allow_unused=True)
    used = [call for call, grad in zip(tail, found, strict=True) if grad is not None]
    return [call for call in calls if call.place != TAIL] + used


def _has_graph(output: Tensor | None) -> bool:
    return output is not None and output.requires_grad


def affinity_block(depth: int) -> int:
    """The second-last block, whose entering tokens say how alike patches are."""
    return max(depth - 2, 0)


def first(output: Any) -> Any:
    """A block's tokens, also where it returns them in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def _leaf(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A leaf of a new graph, and what follows from it (a copy, so it may be changed in place)."""
    torch.set_grad_enabled(True)
    leaf = tensor.detach().requires_grad_()
    return leaf, leaf.clone()
