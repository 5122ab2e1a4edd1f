"""One forward through a model, and everything a method may ask of it.

The forward runs once and keeps no graph but for its tail, from the last block to the output; the
tap holds references to each attention call's keys and values. What depends on a class is computed
on demand: along the readout's own stream, or by backpropagation through the whole model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.alignment import Alignment, along_sequence
from gradtoken.backpropagation import own_calls, through_model, through_tail
from gradtoken.differentiated import Differentiated, gradients
from gradtoken.errors import MethodError, ModelError
from gradtoken.known_linear import LinearCall
from gradtoken.models.anatomy import as_given
from gradtoken.models.calls import first, with_first
from gradtoken.models.model import Model
from gradtoken.models.observe import check_output, run, with_autograd
from gradtoken.models.reading import Reading, current, grid_of
from gradtoken.models.verify import check_blocks, check_readout
from gradtoken.norms import Norms
from gradtoken.patch_grid import PatchGrid, averaged_tokens, pick
from gradtoken.precision import wide
from gradtoken.readouts import Readouts
from gradtoken.stream import follow
from gradtoken.tap import TAIL, AttentionCall, Recorder, WrittenOut
from gradtoken.targets import Targets
from gradtoken.watch import Seen, affinity_block, on_the_way, watching

_TARGET_ELEMENTS = 1 << 26
"""Gradients that one call of `readouts` should hold; see `Trace.targets_at_once`."""


@dataclass(frozen=True)
class Trace:
    """One recorded forward. Made by `record`.

    `logits` is the model's output; of a model that compares pictures with text, its embedding.
    """

    model: Model
    images: Float[Tensor, "batch channels height width"]
    logits: Float[Tensor, "batch classes"]
    calls: list[AttentionCall]
    patch_grid: PatchGrid
    seen: Seen
    output: Float[Tensor, "batch classes"]
    """`logits` with the tail's graph."""
    linears: list[LinearCall]
    """What linear layers of the blocks made of the readout tokens."""
    start: int = 0
    """The first block whose attention was kept."""
    others: tuple[Trace, ...] = ()
    """The same forward as the model's further backbones showed it."""

    @property
    def depth(self) -> int:
        """L, the number of transformer blocks followed."""
        return len(self.model.anatomy.blocks)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of spatial tokens."""
        return self.patch_grid.shape

    @property
    def spatial(self) -> int:
        """N, the number of spatial tokens."""
        return self.patch_grid.count

    @property
    def reading(self) -> Reading:
        """What was verified of the model."""
        assert self.model.reading is not None
        return self.model.reading

    @property
    def backbones(self) -> tuple[Trace, ...]:
        """This trace and those of the model's further backbones."""
        return (self, *self.others)

    @property
    def block_calls(self) -> list[AttentionCall]:
        """The attention calls of the blocks, in order."""
        return [call for call in self.calls if call.place != TAIL]

    @property
    def tail_calls(self) -> list[AttentionCall]:
        """The attention calls after the last block."""
        return [call for call in self.calls if call.place == TAIL]

    @property
    def affinity_tokens(self) -> Float[Tensor, "batch patches dim"]:
        """The spatial tokens entering the second-last block, or those pooled if none is known."""
        inputs = self.seen.inputs
        if inputs:
            return self.patch_grid.pick(inputs[affinity_block(self.depth)], 1)
        tokens = self.pooled().detach()
        return pick(tokens, self.pooled_order(), self.spatial, 1)

    def global_calls(self, method: str) -> list[AttentionCall]:
        """One call per block in which every token attends to every token.

        Raises:
            MethodError: if the model's attention is not of that kind, or is not seen.
        """
        calls = self.block_calls
        shape = (self.patch_grid.tokens,) * 2
        self.check_one_chain(method)
        whole = all((c.query.shape[-2], c.key.shape[-2]) == shape for c in calls)
        if not calls or not whole or [c.place for c in calls] != list(range(self.depth)):
            raise MethodError(
                f"{method} needs the attention between all tokens in every block, which "
                f"{self.model.spec} does not have or computes by hand; use gradtoken."
            )
        return calls

    def check_one_chain(self, method: str) -> None:
        """See that the class is read at the end of one chain of blocks.

        Raises:
            MethodError: if it is read from several blocks or backbones.
        """
        anatomy = self.model.anatomy
        if self.others:
            what = f"{len(self.backbones)} backbones"
        elif len(anatomy.reads) > 1:
            what = f"several blocks ({anatomy.readout})"
        else:
            return
        raise MethodError(
            f"{method} follows one chain of blocks to its end, and {self.model.spec} reads its "
            f"class from {what}; use gradtoken."
        )

    def rows(self) -> list[int]:
        """The rows of a block's attention that belong to the readout: its tokens and those pooled.

        Of a readout that attends for itself after the last block, all rows.
        """
        layout = self.model.layout
        if not layout.rows and layout.pool is None:
            return list(range(self.patch_grid.tokens))
        return sorted({*layout.rows, *self.averaged()})

    def averaged(self) -> tuple[int, ...]:
        """Positions of the tokens that the head averages; none where it does not average."""
        pool = self.model.layout.pool
        return () if pool is None else averaged_tokens(pool, self.patch_grid)

    def tail_orders(self, calls: Sequence[AttentionCall]) -> list[tuple[int, ...] | None]:
        """For each attention after the last block, positions of the spatial tokens among those it
        attends to; None for the last ones. Calls that attend to no patches have none ().

        Raises:
            ModelError: if there are other calls than when the model was read.
        """
        if len(calls) != len(self.reading.tail):
            raise ModelError(
                f"{self.model.spec} made {len(calls)} attention calls after its last block, and "
                f"{len(self.reading.tail)} when it was read; wrap it again."
            )
        return [
            () if aligned is None else self._order(aligned, call.key.shape[-2])
            for call, aligned in zip(calls, self.reading.tail, strict=True)
        ]

    def tail_keys(self, method: str) -> tuple[int, ...]:
        """For each token of the sequence, its position among those that the last attention attends
        to, or -1; empty where the class is not read by attention."""
        if not self.tail_calls:
            return ()
        if len(self.tail_calls) > 1 and self.model.anatomy.attends:
            raise MethodError(
                f"{method} begins with the attention by which the class is read, and "
                f"{self.model.spec} reads it by {len(self.tail_calls)} attentions in turn; use "
                "gradtoken."
            )
        aligned, count = self.reading.tail[-1], self.tail_calls[-1].key.shape[-2]
        if aligned is None:
            raise MethodError(
                f"{method} begins with the attention by which the class is read, which in "
                f"{self.model.spec} is not to the patches; use gradtoken."
            )
        tokens = self.patch_grid.tokens
        keys = aligned.positions(range(tokens), tokens, count)
        return tuple(key if 0 <= key < count else -1 for key in keys)

    def tail_patches(
        self, row: Float[Tensor, "batch keys"], method: str
    ) -> Float[Tensor, "batch patches"]:
        """The patches' values in a row of the last attention after the blocks.

        Raises:
            MethodError: if it is not to the patches.
        """
        return self.patch_grid.pick(along_sequence(row, self.tail_keys(method)))

    def pooled_order(self) -> tuple[int, ...] | None:
        """Positions of the spatial tokens among those that the head averages; None: the last."""
        return self._order(self.reading.pooled, self.pooled().shape[1])

    def pooled_rows(self) -> list[int]:
        """Positions, among the tokens that `pooled` gives, of those that the head averages."""
        count, grid = self.pooled().shape[1], self.patch_grid
        return list(self.reading.pooled.positions(self.averaged(), grid.tokens, count))

    def _order(self, aligned: Alignment, count: int) -> tuple[int, ...] | None:
        grid = self.patch_grid
        order = aligned.positions(grid.positions, grid.tokens, count)
        return None if order == tuple(range(count - grid.count, count)) else order

    @contextmanager
    def differentiating(self) -> Iterator[None]:
        """The model in evaluation mode with gradients on, whatever the caller's mode is."""
        with with_autograd(self.model), torch.enable_grad():
            yield

    @contextmanager
    def differentiated(
        self,
        targets: Targets,
        method: str,
        *,
        images: Tensor | None = None,
        normed: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Differentiated]:
        """A forward with a graph, attention written out; gradients are on inside the `with`.

        Args:
            targets: K targets for each image.
            method: who asks, for the error.
            images: other pixels of the trace's shape; None for the trace's own.
            normed: puts other tokens in place of those normalised before the last block's
                attention.

        Raises:
            MethodError: if not every token attends to every token in each block.
        """
        self.global_calls(method)
        anatomy, apart = self.model.anatomy, self.model.writes_in_place
        tap = WrittenOut(apart=apart)
        with with_autograd(self.model), torch.enable_grad():
            pixels = (self.images if images is None else images).clone().requires_grad_()
            watch = watching(anatomy, tap, graph="whole", every_block=True)
            with watch as seen, tap, Norms(anatomy.blocks[-1], normed, apart=apart) as norms:
                logits = self.model.run(pixels)
            used = {id(call) for call in on_the_way(tap.calls, logits)}
            weights = [
                w for w, call in zip(tap.weights, tap.calls, strict=True) if id(call) in used
            ]
            yield Differentiated(
                attention=weights[: self.depth],
                tail=weights[self.depth :],
                entering=[seen.inputs[index] for index in range(self.depth)],
                norms=norms,
                scores=targets.scores(wide(logits)[:, None].expand(-1, targets.count, -1)),
                rows=self.rows(),
                grid=self.patch_grid,
                keys=self.tail_keys(method),
            )

    def seeds(self, targets: Targets) -> Float[Tensor, "targets batch classes"]:
        """dy/dz at the output."""
        with torch.inference_mode(False), torch.enable_grad():
            logits = wide(self.logits.detach())[:, None].repeat(1, targets.count, 1)
            logits.requires_grad_()
            (found,) = gradients(targets.scores(logits).sum(), [logits])
            return found.transpose(0, 1)

    @contextmanager
    def blocks_alone(self, chosen: Sequence[int]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Some blocks, each with a graph of its own from its attention weights on.

        Yields the weights (B, H, N, N), which are leaves, and the tokens (B, N, D) that leave the
        blocks; gradients are on inside the `with`.
        """
        anatomy, recorder = self.model.anatomy, Recorder(apart=self.model.writes_in_place)
        with with_autograd(self.model):
            watch = watching(anatomy, recorder, graph="tail", every_block=True)
            with torch.no_grad(), watch as seen:
                self.model.run(self.images)
            with torch.enable_grad():
                weights, leaving = [], []
                for index in chosen:
                    tap = WrittenOut(leaves=True)
                    tap.place = index
                    with tap:
                        block, tokens = anatomy.blocks[index], self.model.apart(seen.inputs[index])
                        leaving.append(first(as_given(block, tokens, seen.given[index])))
                    weights += tap.weights
                yield weights, leaving

    def scores_after(
        self, leaving: Sequence[Float[Tensor, "batch tokens dim"]], targets: Targets, method: str
    ) -> Float[Tensor, "layers batch targets"]:
        """The scores that the model gives where other tokens leave its last block.

        Everything after that block is the model's own; several sets of tokens take one pass.

        Raises:
            MethodError: in the name of `method`, if the model counts on the pictures' own tokens.
        """
        anatomy, thread = self.model.anatomy, threading.get_ident()

        def replace(_: Any, args: Any, output: Any) -> Any:
            if threading.get_ident() != thread:
                return None
            return with_first(output, torch.cat([t.to(first(output).dtype) for t in leaving]))

        handle = anatomy.blocks[-1].register_forward_hook(replace)
        try:
            logits = wide(self.model.run(self.images[:1]))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise MethodError(
                f"{method} puts other tokens behind the last block, which {self.model.spec} does "
                f"not take ({str(error).splitlines()[0]}); use gradtoken."
            ) from None
        finally:
            handle.remove()
        each = logits.unflatten(0, (len(leaving), -1))[:, :, None]
        return torch.stack([targets.scores(z.expand(-1, targets.count, -1)) for z in each])

    def readouts(self, targets: Targets, *, gradient: str = "auto") -> Readouts:
        """Attention, values, output and class-aware gradient at every step of the readout.

        Args:
            targets: K targets for each image.
            gradient: "stream" (along the readout alone: its tokens among the others' frozen keys
                and values, then what the head pools or attends to), "full" (backpropagation
                through the whole model), or "auto": "full" where the head only averages tokens of
                known blocks, "stream" otherwise.

        Raises:
            ModelError: if the stream does not lead to the model's own readout.
        """
        if self._goes_full(gradient):
            return through_model(self, targets)
        tail, arriving = through_tail(self, targets)
        if not arriving:
            return Readouts([], tail)
        with self.differentiating():
            return Readouts(follow(self, arriving), tail)

    def pooled(self) -> Float[Tensor, "batch tokens dim"]:
        """The tokens that the head averages."""
        pool = self.model.anatomy.pool
        assert pool is not None
        pooled = self.seen.pooled(pool)
        assert pooled is not None
        return pool.flat(pooled)

    def targets_at_once(self, gradient: str) -> int:
        """How many targets one call of `readouts` should get, so that its gradients fit."""
        call = max((c.value.numel() for c in self.calls), default=0)
        if self._goes_full(gradient):
            each = call * (len(self.calls) + self.start)
        else:
            heads = max((c.key[..., 0].numel() for c in self.calls), default=0)
            each = max(len(self.model.layout.rows), 1) * heads * 4
        return max(1, _TARGET_ELEMENTS // max(each, 1))

    def _goes_full(self, gradient: str) -> bool:
        layout = self.model.layout
        if gradient == "auto":
            averages = not layout.rows and layout.pool is not None
            gradient = "full" if averages and self.depth else "stream"
        return gradient == "full" and bool(self.depth) and self.model.anatomy.attends


def record(
    model: Model,
    images: Float[Tensor, "batch channels height width"],
    *,
    start: int = 0,
    queries: bool = True,
) -> Trace:
    """Run a model once on a preprocessed batch and keep what methods need.

    The forward is the model's own, in evaluation mode; only its tail, from the last block on,
    keeps a graph. The model is as before afterwards, also when it raises.

    Args:
        start: index of the first block whose attention is kept (`Method.first_block`).
        queries: whether the blocks' queries are kept (`Method.needs_queries`).

    Raises:
        ModelError: if the forward fails, returns no (B, C) output, or its attention is not seen.
    """
    with with_autograd(model):
        model = current(model)
        images = images.to(model.device, model.dtype).detach()
        total = images.sum()
        backbones = [replace(model, others=()), *model.others]
        start = 0 if model.others else start
        grids = [grid_of(one, images) for one in backbones]
        recorders, seen, output = _watched(backbones, images, start, queries)
    if recorders[0].written and not model.writes_in_place:
        # by a part of the module that did not run when it was read
        for one in backbones:
            assert one.reading is not None
            one.reading.writes_in_place = True
        if not torch.equal(total, images.sum()):
            raise ModelError(
                f"{model.spec} wrote into its images, which it did not do when it was read; give "
                "them again, it will get copies from now on."
            )
        return record(model, images, start=start, queries=queries)
    _check_output(model, output, len(images))
    traces = []
    for one, grid, recorder, each in zip(backbones, grids, recorders, seen, strict=True):
        calls = own_calls(one, each, on_the_way(recorder.calls, output))
        check_blocks(one, each, calls, start)
        _check_seen(one, calls, each)
        check_readout(one, each, calls, output, grid)
        logits = output.detach()
        traces.append(
            Trace(one, images, logits, calls, grid, each, output, recorder.linears, start)
        )
    return replace(traces[0], model=model, others=tuple(traces[1:]))


def _watched(
    backbones: Sequence[Model], images: Tensor, start: int, queries: bool
) -> tuple[list[Recorder], list[Seen], Any]:
    """One forward, as each backbone's recorder and watcher saw it, and the output."""
    apart = backbones[0].writes_in_place
    recorders = [Recorder(one.layout.rows, queries=queries, apart=apart) for one in backbones]
    with ExitStack() as stack:
        # a model that turns gradients off for its blocks goes on after them in its caller's mode
        turns_off = any(one.reading and not one.reading.differentiable for one in backbones)
        stack.enter_context(torch.set_grad_enabled(turns_off))
        seen = [
            stack.enter_context(watching(one.anatomy, recorder, graph="tail", start=start))
            for one, recorder in zip(backbones, recorders, strict=True)
        ]
        for recorder in recorders:
            stack.enter_context(recorder)
        return recorders, seen, run(backbones[0], images)


def _check_output(model: Model, output: Any, count: int) -> None:
    check_output(model, output)
    if len(output) != count:
        raise ModelError(
            f"{model.spec} returned {tuple(output.shape)} for {count} images where logits (B, C) "
            "are needed; give it a classification head."
        )
    if model.prompts is None and output.shape[-1] != len(model.labels):
        raise ModelError(
            f"{model.spec} returned {output.shape[-1]} logits but has {len(model.labels)} labels; "
            "wrap it again, with labels=[…] of as many names."
        )


def _check_seen(model: Model, calls: list[AttentionCall], seen: Seen) -> None:
    """Refuse a model whose readout was not seen at work."""
    layout = model.layout
    places = {call.place for call in calls}
    if not layout.rows and layout.pool is None and TAIL not in places:
        raise ModelError(
            f"{model.spec} reads its class by attention after the last block, but none was seen, "
            "because it computes it by hand; build it with fused attention."
        )
    seen.pooled(model.anatomy.pool)
