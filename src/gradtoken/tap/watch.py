"""Watching one forward: where it is, what enters and leaves the blocks, and from where on it has a
graph.

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
from gradtoken.tap.anatomy import Anatomy, Given, Pool
from gradtoken.tap.calls import block_tokens, first, with_block_tokens, with_first
from gradtoken.tap.tap import TAIL, AttentionCall, Recorder

Graph: TypeAlias = Literal["tail", "cut", "whole"]
"""Where a forward has a graph.

"tail": from the blocks that the head reads to the output; call it under `torch.no_grad()`.
"cut": everywhere but inside the blocks, the output of each of which is a leaf.
"whole": everywhere, also where the model runs its blocks under `torch.no_grad()`.
"""


@dataclass
class Seen:
    """What a forward showed.

    Args:
        inputs: tokens (B, N, D) entering some blocks, by index.
        given: what each block was called with beside them, in the order of the calls.
        entered: the index of each block called, in order.
        lengths: how many tokens entered each of them.
        differentiable: whether gradients were on at the first one, and its tokens had a graph.
        leaving: tokens (B, N, D) that left the blocks whose output is a leaf, by index; of the last
            block always.
        handed: the same as the model was given them, by index: a copy of a leaf.
        pools: what left (or entered) the module after which the head averages, call by call, as
            the model shapes it.
    """

    inputs: dict[int, Tensor] = field(default_factory=dict)
    given: list[Given] = field(default_factory=list)
    entered: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    differentiable: bool = True
    leaving: dict[int, Tensor] = field(default_factory=dict)
    handed: dict[int, Tensor] = field(default_factory=dict)
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
def watching(
    anatomy: Anatomy,
    recorder: Recorder,
    *,
    graph: Graph,
    every_block: bool = False,
    start: int = 0,
) -> Iterator[Seen]:
    """Follow the forward that this thread runs inside the `with` block.

    Args:
        anatomy: where the blocks and the pool are.
        recorder: is told where the forward is.
        graph: where the forward has a graph.
        every_block: keep the tokens entering each block, not only those of a few.
        start: blocks before this one are of no interest to the recorder.
    """
    watcher = _Watcher(anatomy, recorder, graph, every_block, start)
    blocks, pool = anatomy.blocks, anatomy.pool
    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            pre = block.register_forward_pre_hook(watcher.enter(index), with_kwargs=True)
            stack.callback(pre.remove)
            if watcher.watches_exit(index):
                stack.callback(block.register_forward_hook(watcher.leave(index)).remove)
        if pool is not None and pool.at_input:
            stack.callback(pool.module.register_forward_pre_hook(watcher.pooled).remove)
        elif pool is not None:
            stack.callback(pool.module.register_forward_hook(watcher.pooled).remove)
        yield watcher.seen


class _Watcher:
    """The hooks of one `watching`, which heed the thread that made it."""

    def __init__(
        self, anatomy: Anatomy, recorder: Recorder, graph: Graph, every_block: bool, start: int
    ) -> None:
        self.seen = Seen()
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

    def watches_exit(self, index: int) -> bool:
        return index in self._leaves or index == self._depth - 1

    def enter(self, index: int) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
            # torch can call it without keywords in a thread that runs the model while it is removed
            if threading.get_ident() != self._thread:
                return None
            given = kwargs or {}
            tokens, rest = block_tokens(args, given)
            recorder, seen = self._recorder, self.seen
            recorder.place = index if self._anatomy.attends and index >= self._start else None
            recorder.tokens = tokens.shape[1]
            if not seen.entered:
                seen.differentiable = torch.is_grad_enabled() and tokens.requires_grad
            seen.entered.append(index)
            seen.lengths.append(recorder.tokens)
            seen.given.append(rest)
            changed = None
            if self._graph != "whole":
                torch.set_grad_enabled(False)
            elif not (torch.is_grad_enabled() and tokens.requires_grad):
                torch.set_grad_enabled(True)
                tokens = tokens if tokens.requires_grad else tokens.detach().requires_grad_()
                changed = with_block_tokens(args, given, tokens)
            if index in self._kept:
                seen.inputs[index] = tokens.detach() if self._graph == "tail" else tokens
                if recorder.apart:
                    changed = with_block_tokens(args, given, tokens.clone())
            return changed

        return hook

    def leave(self, index: int) -> Callable[..., Any]:
        def hook(_: nn.Module, args: Any, output: Any) -> Any:
            if threading.get_ident() != self._thread:
                return None
            if index == self._depth - 1:
                self._recorder.place = TAIL
            self.seen.leaving[index] = first(output)
            if index not in self._leaves:
                return self._following(output)
            leaf, following = _leaf(first(output))
            self.seen.leaving[index], self.seen.handed[index] = leaf, following
            return with_first(output, following)

        return hook

    def pooled(self, _: nn.Module, args: tuple[Any, ...], output: Any = None) -> Any:
        if threading.get_ident() != self._thread:
            return None
        tokens = args[0] if output is None else first(output)
        if self._graph == "whole" or self._depth:
            self.seen.pools.append(tokens)
            if output is not None:
                return self._following(output)
            return (tokens.clone(), *args[1:]) if self._recorder.apart else None
        self._recorder.place = TAIL
        leaf, following = _leaf(tokens)
        self.seen.pools.append(leaf)
        return (following, *args[1:]) if output is None else with_first(output, following)

    def _following(self, output: Any) -> Any:
        """What the model goes on with where its own output is kept; None for the same."""
        return with_first(output, first(output).clone()) if self._recorder.apart else None


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


def _leaf(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A leaf of a new graph, and what follows from it (a copy, so it may be changed in place)."""
    torch.set_grad_enabled(True)
    leaf = tensor.detach().requires_grad_()
    return leaf, leaf.clone()
