"""Hooks on the blocks of one forward: they record tokens, and say where the forward has a graph.

By default a forward keeps no graph. When a block that the head reads has run, gradients are
switched on and its output becomes a leaf, so whatever the model does from there to its output
(norms, pools, projections, heads) is differentiated by the model's own code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from gradtoken.errors import ModelError
from gradtoken.tap.anatomy import Anatomy, BlockArguments, Pool
from gradtoken.tap.attention_call import TAIL, AttentionCall
from gradtoken.tap.block_io import (
    block_tokens,
    output_tokens,
    with_block_tokens,
    with_output_tokens,
)
from gradtoken.tap.recorder import Recorder

Graph: TypeAlias = Literal["tail", "cut", "whole"]
"""Where a forward has a graph.

"tail": from the blocks that the head reads to the output; run it under `torch.no_grad()`.
"cut": everywhere but inside the blocks, the output of each of which is a leaf.
"whole": everywhere, also where the model runs its blocks under `torch.no_grad()`.
"""


@dataclass
class BlockRecord:
    """The blocks of one forward as hooks observed them.

    Args:
        inputs: tokens (B, N, D) entering some blocks, by index.
        arguments: the other arguments of each block, in the order of the calls.
        order: the index of each block called, in order.
        lengths: how many tokens entered each of them.
        differentiable: whether gradients were on at the first one, and its tokens had a graph.
        outputs: tokens (B, N, D) that left the blocks whose output is a leaf, by index; of the last
            block always.
        forwarded: the same as the model got them, by index: a copy of a leaf.
        pools: the output (or input) of the module after which the head averages, call by call, in
            the model's own shape.
    """

    inputs: dict[int, Tensor] = field(default_factory=dict)
    arguments: list[BlockArguments] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    differentiable: bool = True
    outputs: dict[int, Tensor] = field(default_factory=dict)
    forwarded: dict[int, Tensor] = field(default_factory=dict)
    pools: list[Tensor] = field(default_factory=list)

    def pooled(self, pool: Pool | None) -> Tensor | None:
        """What the head averages, or None without a pool.

        Raises:
            ModelError: if the pool's module did not run as often as it should.
        """
        if pool is None:
            return None
        try:
            return self.pools[pool.call]
        except IndexError:
            raise ModelError(
                "the model did not run the module whose output its head pools; wrap it again, or "
                "tell where the class is read with wrap(…, layout=…)."
            ) from None


@contextmanager
def block_hooks(
    anatomy: Anatomy,
    recorder: Recorder,
    *,
    graph: Graph,
    every_block: bool = False,
    start: int = 0,
) -> Iterator[BlockRecord]:
    """Observe the forward that this thread runs inside the `with` block.

    Args:
        anatomy: where the blocks and the pool are.
        recorder: its `place` follows the forward.
        graph: where the forward has a graph.
        every_block: whether the tokens entering each block are kept, not only those of a few.
        start: the first block whose attention is recorded.
    """
    hooks = _BlockHooks(anatomy, recorder, graph, every_block, start)
    blocks, pool = anatomy.blocks, anatomy.pool
    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            pre = block.register_forward_pre_hook(hooks.enter(index), with_kwargs=True)
            stack.callback(pre.remove)
            if hooks.needs_output(index):
                stack.callback(block.register_forward_hook(hooks.leave(index)).remove)
        if pool is not None and pool.at_input:
            stack.callback(pool.module.register_forward_pre_hook(hooks.pooled).remove)
        elif pool is not None:
            stack.callback(pool.module.register_forward_hook(hooks.pooled).remove)
        yield hooks.record


class _BlockHooks:
    """The hooks of one `block_hooks`; they ignore other threads."""

    def __init__(
        self, anatomy: Anatomy, recorder: Recorder, graph: Graph, every_block: bool, start: int
    ) -> None:
        self.record = BlockRecord()
        self._thread = threading.get_ident()
        self._anatomy = anatomy
        self._recorder = recorder
        self._graph = graph
        self._depth = len(anatomy.blocks)
        self._start = start
        kept = range(self._depth) if every_block else (start, affinity_block(self._depth))
        self._kept = frozenset(kept)
        cut = {"tail": anatomy.reads, "cut": range(self._depth), "whole": ()}[graph]
        self._leaves = frozenset(cut)

    def needs_output(self, index: int) -> bool:
        return index in self._leaves or index == self._depth - 1

    def enter(self, index: int) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
            # torch can call it without keywords in a thread that runs the model while it is removed
            if threading.get_ident() != self._thread:
                return None
            tokens, arguments = block_tokens(args, kwargs or {})
            recorder, record = self._recorder, self.record
            recorder.place = index if self._anatomy.attends and index >= self._start else None
            recorder.block = index if self._anatomy.attends else None
            recorder.tokens = tokens.shape[1]
            if not record.order:
                record.differentiable = torch.is_grad_enabled() and tokens.requires_grad
            record.order.append(index)
            record.lengths.append(recorder.tokens)
            record.arguments.append(arguments)
            changed = None
            if self._graph != "whole":
                torch.set_grad_enabled(False)
            elif not (torch.is_grad_enabled() and tokens.requires_grad):
                torch.set_grad_enabled(True)
                tokens = tokens if tokens.requires_grad else tokens.detach().requires_grad_()
                changed = with_block_tokens(args, kwargs or {}, tokens)
            if index in self._kept:
                record.inputs[index] = tokens.detach() if self._graph == "tail" else tokens
                if recorder.copies:
                    changed = with_block_tokens(args, kwargs or {}, tokens.clone())
            return changed

        return hook

    def leave(self, index: int) -> Callable[..., Any]:
        def hook(_: nn.Module, _args: Any, output: Any) -> Any:
            if threading.get_ident() != self._thread:
                return None
            if index == self._depth - 1:
                self._recorder.place, self._recorder.block = TAIL, None
            self.record.outputs[index] = output_tokens(output)
            if index not in self._leaves:
                return self._writable(output)
            leaf, copy = _leaf(output_tokens(output))
            self.record.outputs[index], self.record.forwarded[index] = leaf, copy
            return with_output_tokens(output, copy)

        return hook

    def pooled(self, _: nn.Module, args: tuple[Any, ...], output: Any = None) -> Any:
        if threading.get_ident() != self._thread:
            return None
        tokens = args[0] if output is None else output_tokens(output)
        if self._graph == "whole" or self._depth:
            self.record.pools.append(tokens)
            if output is not None:
                return self._writable(output)
            return (tokens.clone(), *args[1:]) if self._recorder.copies else None
        self._recorder.place = TAIL
        leaf, copy = _leaf(tokens)
        self.record.pools.append(leaf)
        return (copy, *args[1:]) if output is None else with_output_tokens(output, copy)

    def _writable(self, output: Any) -> Any:
        """An output that the model may write into where its own is recorded; None for its own."""
        return (
            with_output_tokens(output, output_tokens(output).clone())
            if self._recorder.copies
            else None
        )


def contributing_calls(calls: list[AttentionCall], output: Tensor) -> list[AttentionCall]:
    """The attention calls of the blocks, and those after them that the output depends on."""
    tail = [call for call in calls if call.place == TAIL and _has_graph(call.output)]
    if not tail:
        return [call for call in calls if call.place != TAIL]
    nodes = [call.output for call in tail if call.output is not None]
    with torch.enable_grad():
        grads = torch.autograd.grad(output.sum(), nodes, retain_graph=True, allow_unused=True)
    used = [call for call, grad in zip(tail, grads, strict=True) if grad is not None]
    return [call for call in calls if call.place != TAIL] + used


def _has_graph(output: Tensor | None) -> bool:
    return output is not None and output.requires_grad


def affinity_block(depth: int) -> int:
    """The second-last block, whose input tokens tell how similar patches are."""
    return max(depth - 2, 0)


def _leaf(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A leaf of a new graph, and a copy with a graph to it, which may be changed in place."""
    torch.set_grad_enabled(True)
    leaf = tensor.detach().requires_grad_()
    return leaf, leaf.clone()
