"""One forward through a model, and everything a method may ask of it.

The forward runs once and keeps no graph but for its tail, from the last block to the output; the
tap holds references to each attention call's keys and values. What depends on a class is computed
on demand: along the readout's own stream, or by backpropagation through the whole model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.backpropagation import through_model, through_tail
from gradtoken.differentiated import Differentiated, gradients
from gradtoken.errors import MethodError, ModelError
from gradtoken.in_place import apart, note, writable, writes
from gradtoken.known_linear import LinearCall
from gradtoken.models.anatomy import Pool, as_given
from gradtoken.models.model import Model
from gradtoken.norms import Norms
from gradtoken.precision import wide
from gradtoken.readouts import Readouts
from gradtoken.stream import follow
from gradtoken.tap import TAIL, AttentionCall, Recorder, WrittenOut
from gradtoken.targets import Targets
from gradtoken.watch import Seen, affinity_block, first, on_the_way, watching

_TARGET_ELEMENTS = 1 << 26
"""Gradients that one call of `readouts` should hold; see `Trace.targets_at_once`."""


@dataclass(frozen=True)
class Trace:
    """One recorded forward. Made by `record`.

    `logits` is the model's output; of a model that compares pictures with text, its embedding.
    """

    model: Model
    images: Float[Tensor, "batch 3 height width"]
    logits: Float[Tensor, "batch classes"]
    calls: list[AttentionCall]
    grid: tuple[int, int]
    seen: Seen
    output: Float[Tensor, "batch classes"]
    """`logits` with the tail's graph."""
    linears: list[LinearCall]
    """What linear layers of the blocks made of the readout tokens."""
    start: int = 0
    """The first block whose attention was kept."""

    @property
    def depth(self) -> int:
        """L, the number of transformer blocks followed."""
        return len(self.model.anatomy.blocks)

    @property
    def spatial(self) -> int:
        """N, the number of spatial tokens: the last ones of every sequence."""
        return self.grid[0] * self.grid[1]

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
        tokens = inputs[affinity_block(self.depth)] if inputs else self.pooled().detach()
        return tokens[:, -self.spatial :]

    def global_calls(self, method: str) -> list[AttentionCall]:
        """One call per block in which every token attends to every token.

        Raises:
            MethodError: if the model's attention is not of that kind, or is not seen.
        """
        calls = self.block_calls
        shape = (self.spatial + self.model.layout.prefix,) * 2
        whole = all((c.query.shape[-2], c.key.shape[-2]) == shape for c in calls)
        if not calls or not whole or [c.place for c in calls] != list(range(self.depth)):
            raise MethodError(
                f"{method} needs the attention between all tokens in every block, which "
                f"{self.model.spec} does not have or computes by hand; use gradtoken."
            )
        return calls

    def rows(self) -> list[int]:
        """The rows of a block's attention that belong to the readout: its tokens and those pooled.

        Of a readout that attends for itself after the last block, all rows.
        """
        layout = self.model.layout
        tokens = layout.prefix + self.spatial
        if not layout.rows and layout.pool is None:
            return list(range(tokens))
        pooled = range(tokens if layout.pool is None else layout.pool, tokens)
        return sorted({*layout.rows, *pooled})

    @contextmanager
    def differentiating(self) -> Iterator[None]:
        """The model in evaluation mode with gradients on, whatever the caller's mode is."""
        with _plain_autograd(self.model), torch.enable_grad():
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
        anatomy, kept_apart = self.model.anatomy, writes(self.model.module)
        tap = WrittenOut(apart=kept_apart)
        with _plain_autograd(self.model), torch.enable_grad():
            pixels = (self.images if images is None else images).clone().requires_grad_()
            watch = watching(anatomy, tap, tail_graph=False, every_block=True)
            with watch as seen, tap, Norms(anatomy.blocks[-1], normed, apart=kept_apart) as norms:
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
                spatial=self.spatial,
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
        anatomy, module = self.model.anatomy, self.model.module
        with _plain_autograd(self.model):
            recorder = Recorder(apart=writes(module))
            watch = watching(anatomy, recorder, tail_graph=False, every_block=True)
            with torch.no_grad(), watch as seen:
                self.model.run(self.images)
            with torch.enable_grad():
                weights, leaving = [], []
                for index in chosen:
                    tap = WrittenOut(leaves=True)
                    tap.place = index
                    with tap:
                        block, tokens = anatomy.blocks[index], apart(module, seen.inputs[index])
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
            tokens = torch.cat([t.to(first(output).dtype) for t in leaving])
            return (tokens, *output[1:]) if isinstance(output, tuple) else tokens

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
        if arriving is None:
            return Readouts([], tail)
        with self.differentiating():
            return Readouts(follow(self, arriving), tail)

    def pooled(self) -> Float[Tensor, "batch tokens dim"]:
        """The tokens that the head averages."""
        pool = self.model.anatomy.pool
        assert pool is not None
        assert self.seen.pooled is not None
        return pool.flat(self.seen.pooled)

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
    images: Float[Tensor, "batch 3 height width"],
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
    if any(parameter.is_inference() for parameter in model.module.parameters()):
        raise ModelError(
            f"{model.spec} was built inside torch.inference_mode, which forbids gradients through "
            "it; build it outside."
        )
    known, anatomy = writes(model.module), model.anatomy
    recorder = Recorder(model.layout.rows, queries=queries, apart=known)
    with _plain_autograd(model), torch.no_grad():
        images = images.to(model.device, model.dtype).clone()
        recorder.input = images
        with watching(anatomy, recorder, tail_graph=True, start=start) as seen, recorder:
            try:
                output: Any = model.run(images)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, AssertionError, ValueError) as error:
                if known or not recorder.written:
                    raise ModelError(
                        f"{model.spec} cannot run on a batch of shape {tuple(images.shape)}: "
                        f"{error}"
                    ) from error
    if recorder.written and not known:
        assert recorder.input is not None
        note(model.module)
        return record(model, recorder.input, start=start, queries=queries)
    _check_output(model, output, len(images))
    calls = on_the_way(recorder.calls, output)
    _check_seen(model, calls, seen, start)
    tokens = seen.inputs[start] if seen.inputs else _flat(anatomy.pool, seen.pooled)
    grid = model.layout.grid_for((images.shape[-2], images.shape[-1]), tokens.shape[1])
    return Trace(model, images, output.detach(), calls, grid, seen, output, recorder.linears, start)


def _flat(pool: Pool | None, pooled: Tensor | None) -> Tensor:
    assert pool is not None
    assert pooled is not None
    return pool.flat(pooled)


def _check_output(model: Model, output: Any, count: int) -> None:
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != count:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"{model.spec} returned {shape} for {count} images where logits (B, C) are needed; "
            "give it a classification head."
        )
    if model.prompts is None and output.shape[-1] != len(model.labels):
        raise ModelError(
            f"{model.spec} returned {output.shape[-1]} logits but has {len(model.labels)} labels; "
            "wrap it again, with labels=[…] of as many names."
        )


def _check_seen(model: Model, calls: list[AttentionCall], seen: Seen, start: int) -> None:
    """Refuse a model whose readout was not seen at work."""
    layout, depth = model.layout, len(model.anatomy.blocks) - start
    places = {call.place for call in calls}
    if layout.rows or (layout.pool is not None and depth):
        missing = depth - len(places - {TAIL})
        if missing:
            raise ModelError(
                f"{model.spec} has {depth} blocks but attention was seen in {depth - missing}, "
                "because it computes attention by hand; build it with fused attention "
                "(scaled_dot_product_attention or nn.MultiheadAttention)."
            )
    elif layout.pool is None and TAIL not in places:
        raise ModelError(
            f"{model.spec} reads its class by attention after the last block, but none was seen, "
            "because it computes it by hand; build it with fused attention."
        )
    if model.anatomy.pool is not None and seen.pooled is None:
        raise ModelError(
            f"{model.spec} did not run the module whose output its head pools; tell where the "
            "class is read with wrap(…, layout=…)."
        )


@contextmanager
def _plain_autograd(model: Model) -> Iterator[None]:
    """Evaluation mode, with autograd usable even inside a caller's `torch.inference_mode`."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(model.evaluating())
        stack.enter_context(writable(model.module))
        yield
