"""One forward through a model, and everything a method may ask of it.

The forward runs once and keeps no graph but for its tail, from the last block to the output; the
tap holds references to each attention call's keys and values. What depends on a class is computed
on demand: along the readout's own stream, or by backpropagation through the whole model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.differentiated import Differentiated, each_gradient, gradients
from gradtoken.errors import MethodError, ModelError
from gradtoken.models.anatomy import Pool, as_given
from gradtoken.models.model import Model
from gradtoken.norms import Norms
from gradtoken.relevance import Relevance
from gradtoken.tap import TAIL, AttentionCall, FrozenContext, Recorder, WrittenOut, wide
from gradtoken.targets import Targets
from gradtoken.watch import Seen, affinity_block, first, watching

_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}
"""How far the stream's last token may be from the model's, relative to its largest channel."""

_LOST = 0.05
"""Relevance that may be lost between the output and the first block, of its absolute sum."""

_TAIL_ELEMENTS = 1 << 20
"""Gradients of one chunk of targets at the tail's nodes; more targets run in several chunks."""

_TARGET_ELEMENTS = 1 << 26
"""Gradients that one call of `readouts` should hold; see `Trace.targets_at_once`."""


@dataclass(frozen=True)
class Readout:
    """What one attention step wrote into the readout, and what each target makes of it.

    The readout has `rows`: one for a class token, two with a distillation token, one per pooled
    token in the blocks of a model that averages them. An average is a step too: one head, one row
    of equal weights, and the averaged tokens as values.
    """

    attention: Float[Tensor, "batch heads rows tokens"]
    value: Float[Tensor, "batch heads tokens width"]
    output: Float[Tensor, "batch heads rows width"]
    gradient: Float[Tensor, "batch heads targets rows width"]
    """The class-aware gradient: of each target's score by `output`."""


@dataclass(frozen=True)
class Readouts:
    """The readout's steps: those of each block, and those after the last one (pools, class
    attention)."""

    blocks: list[list[Readout]]
    tail: list[Readout]


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
        tokens = inputs[affinity_block(self.depth)] if inputs else self._pooled().detach()
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
        anatomy, tap = self.model.anatomy, WrittenOut()
        with _plain_autograd(self.model), torch.enable_grad():
            pixels = (self.images if images is None else images).clone().requires_grad_()
            watch = watching(anatomy, tap, tail_graph=False, every_block=True)
            with watch as seen, tap, Norms(anatomy.blocks[-1], normed) as norms:
                logits = anatomy.forward(self.model.module, pixels)
            used = {id(call) for call in _on_the_way(tap.calls, logits)}
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

    def attention_relevance(self, targets: Targets, method: str) -> list[list[Tensor]]:
        """Layer-wise relevance (B, H, N, N) of each block's attention, for each target in turn.

        It starts at the output as dy/dz, which is one at the logit of a class. For models that
        read their class from tokens.

        Raises:
            MethodError: in the name of `method`, if the class is read otherwise, or relevance is
                lost on the way, because the model uses an operation without a rule.
        """
        self._check_class_token(method)
        seeds, tap = self._seeds(targets), Relevance()
        found = []
        with self._relevant_forward(tap) as (output, seen):
            at = [*tap.weights, seen.inputs[0]]
            for seed in seeds:
                *blocks, arrived = gradients(output, at, True, vector=seed.to(output.dtype))
                self._check_conserved(seed, arrived, method)
                found.append(blocks)
        return found

    def token_relevance(
        self, targets: Targets, tap: WrittenOut, method: str
    ) -> Float[Tensor, "batch targets tokens"]:
        """Relevance that a tap's rules bring from dy/dz * z to the tokens entering the first block.

        Raises:
            MethodError: in the name of `method`, if the class is not read from tokens.
        """
        self._check_class_token(method)
        seeds = [seed * self.logits for seed in self._seeds(targets)]
        with self._relevant_forward(tap) as (output, seen):
            found = [
                gradients(output, [seen.inputs[0]], True, vector=seed.to(output.dtype))[0]
                for seed in seeds
            ]
        return torch.stack([wide(relevance).sum(-1) for relevance in found], dim=1)

    def _check_class_token(self, method: str) -> None:
        self.global_calls(method)
        if not self.model.layout.rows or self.model.layout.pool is not None or self.tail_calls:
            raise MethodError(
                f"{method} propagates relevance from a class token, which {self.model.spec} does "
                f"not read its class from ({self.model.anatomy.readout}); use gradtoken."
            )

    @contextmanager
    def _relevant_forward(self, tap: WrittenOut) -> Iterator[tuple[Tensor, Seen]]:
        """The output of a forward with a graph, under a tap whose rules its backward follows."""
        anatomy = self.model.anatomy
        with _plain_autograd(self.model), torch.enable_grad():
            pixels = self.images.clone().requires_grad_()
            with watching(anatomy, tap, tail_graph=False, every_block=True) as seen, tap:
                output = anatomy.forward(self.model.module, pixels)
            yield output, seen

    def _seeds(self, targets: Targets) -> Float[Tensor, "targets batch classes"]:
        """dy/dz at the output."""
        with torch.inference_mode(False), torch.enable_grad():
            logits = wide(self.logits.detach())[:, None].repeat(1, targets.count, 1)
            logits.requires_grad_()
            (found,) = gradients(targets.scores(logits).sum(), [logits])
            return found.transpose(0, 1)

    def _check_conserved(self, seed: Tensor, arrived: Tensor, method: str) -> None:
        size = wide(seed).abs().sum(-1)
        lost = wide(arrived).sum(dim=(1, 2)) - wide(seed).sum(-1)
        if bool((lost.abs() > _LOST * size).any()):
            share = float((lost.abs() / size).max())
            raise MethodError(
                f"{method} loses {share:.0%} of the relevance on its way through "
                f"{self.model.spec}, which uses operations that have no rule; use gradtoken."
            )

    @contextmanager
    def blocks_alone(self, chosen: Sequence[int]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Some blocks, each with a graph of its own from its attention weights on.

        Yields the weights (B, H, N, N), which are leaves, and the tokens (B, N, D) that leave the
        blocks; gradients are on inside the `with`.
        """
        anatomy = self.model.anatomy
        with _plain_autograd(self.model):
            watch = watching(anatomy, Recorder(), tail_graph=False, every_block=True)
            with torch.no_grad(), watch as seen:
                anatomy.forward(self.model.module, self.images)
            with torch.enable_grad():
                weights, leaving = [], []
                for index in chosen:
                    tap = WrittenOut(leaves=True)
                    tap.place = index
                    with tap:
                        block, tokens = anatomy.blocks[index], seen.inputs[index]
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
            logits = wide(anatomy.forward(self.model.module, self.images[:1]))
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
            return self._full(targets)
        tail, arriving = self._tail(targets)
        return Readouts([] if arriving is None else self._stream(arriving), tail)

    def targets_at_once(self, gradient: str) -> int:
        """How many targets one call of `readouts` should get, so that its gradients fit."""
        call = max((c.value.numel() for c in self.calls), default=0)
        if self._goes_full(gradient):
            each = call * len(self.calls)
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

    def _tail(self, targets: Targets) -> tuple[list[Readout], Tensor | None]:
        """The tail's steps, and the gradient (B, K, R, D) at the readout tokens it begins with."""
        rows = list(self.model.layout.rows)
        steps = self.tail_calls
        at: list[Tensor] = [call.output for call in steps if call.output is not None]
        if self.seen.pooled is not None:
            at.append(self.seen.pooled)
        if rows:
            assert self.seen.last is not None
            at.append(self.seen.last)
        columns = self._tail_gradients(targets, at)
        arriving = columns.pop().transpose(0, 1) if rows else None
        tail = [_called(c, slice(None), columns.pop(0)) for c in steps]
        if self.seen.pooled is not None:
            tail.append(self._average(self._pooled(), columns.pop()))
        return tail, arriving

    def _tail_gradients(
        self, targets: Targets, at: list[Tensor]
    ) -> list[Float[Tensor, "targets batch *node"]]:
        """The class-aware gradients at some nodes of the tail; at the last tokens, of the readout's
        rows alone."""
        rows, last = list(self.model.layout.rows), self.seen.last
        seeds = self._seeds(targets).to(self.output.dtype)
        step = max(1, _TAIL_ELEMENTS // sum(node.numel() for node in at))
        chunks = []
        with _plain_autograd(self.model):
            for start in range(0, targets.count, step):
                found = each_gradient(self.output, at, seeds[start : start + step])
                chunks.append(
                    [g[:, :, rows] if o is last else g for o, g in zip(at, found, strict=True)]
                )
        return [torch.cat(column) for column in zip(*chunks, strict=True)]

    def _pooled(self) -> Float[Tensor, "batch tokens dim"]:
        pool = self.model.anatomy.pool
        assert pool is not None
        assert self.seen.pooled is not None
        return pool.flat(self.seen.pooled)

    def _average(self, tokens: Tensor, gradients: Iterable[Tensor]) -> Readout:
        """The average of `tokens` (B, N, D) as an attention step with equal weights."""
        pool = self.model.anatomy.pool
        assert pool is not None
        start = self.model.layout.pool or 0
        tokens = wide(tokens.detach())
        weight = tokens.new_zeros(len(tokens), 1, 1, tokens.shape[1])
        weight[..., start:] = 1 / (tokens.shape[1] - start)
        each = torch.stack([wide(pool.flat(g))[:, start:] for g in gradients], dim=1)
        _check_average(each, self.model.spec)
        return Readout(
            weight,
            tokens[:, None],
            (weight[:, 0] @ tokens)[:, None],
            each.sum(dim=2)[:, None, :, None],
        )

    def _stream(self, arriving: Float[Tensor, "batch targets rows dim"]) -> list[list[Readout]]:
        anatomy, rows = self.model.anatomy, self.model.layout.rows
        start = self.seen.inputs[0][:, list(rows)]
        with _plain_autograd(self.model), torch.enable_grad():
            token = start.detach().clone().requires_grad_()
            tap = FrozenContext(self.block_calls, rows)
            with tap:
                for block, given in zip(anatomy.blocks, self.seen.given, strict=True):
                    token = first(anatomy.step(block, token, given))
            self._check_stream(token.detach())
            found = each_gradient(token, tap.outputs, arriving.transpose(0, 1).to(token.dtype))
        blocks: list[list[Readout]] = [[] for _ in range(self.depth)]
        for call, a, o, each in zip(
            self.block_calls, tap.attention, tap.outputs, found, strict=True
        ):
            gradient = wide(each.movedim(0, 2))
            blocks[call.place].append(Readout(a, wide(call.value), wide(o.detach()), gradient))
        return blocks

    def _check_stream(self, tokens: Float[Tensor, "batch rows dim"]) -> None:
        assert self.seen.last is not None
        expected = wide(self.seen.last.detach()[:, list(self.model.layout.rows)])
        gap = float((wide(tokens) - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
        allowed = _TOLERANCE[self.calls[0].key.dtype]
        if not gap <= allowed:
            raise ModelError(
                f"the readout's own stream does not lead where {self.model.spec} leads (relative "
                f"difference {gap:.2g}, at most {allowed:g} is rounding), so the model does more "
                'with it than its blocks; use gradient="full".'
            )

    def _full(self, targets: Targets) -> Readouts:
        anatomy, rows = self.model.anatomy, self.rows()
        recorder = Recorder()
        with _plain_autograd(self.model), torch.enable_grad():
            images = self.images.clone().requires_grad_()
            with watching(anatomy, recorder, tail_graph=False) as seen, recorder:
                logits = anatomy.forward(self.model.module, images)
            calls = _on_the_way(recorder.calls, logits)
            at: list[Tensor] = [call.output for call in calls if call.output is not None]
            if seen.pooled is not None:
                at.append(seen.pooled)
            scores = targets.scores(wide(logits)[:, None].expand(-1, targets.count, -1)).sum(0)
            found = [gradients(y, at, k + 1 < targets.count) for k, y in enumerate(scores)]
        columns = [list(column) for column in zip(*found, strict=True)]
        blocks: list[list[Readout]] = [[] for _ in range(self.depth)]
        tail = []
        for call, column in zip(calls, columns, strict=False):
            if call.place == TAIL:
                tail.append(_called(call, slice(None), column))
            else:
                blocks[call.place].append(_called(call, rows, column))
        if anatomy.pool is not None and seen.pooled is not None:
            tail.append(self._average(anatomy.pool.flat(seen.pooled), columns[-1]))
        return Readouts(blocks, tail)


def _called(call: AttentionCall, rows: slice | list[int], gradients: Iterable[Tensor]) -> Readout:
    assert call.output is not None
    with torch.no_grad():
        return Readout(
            call.rows(rows).detach(),
            wide(call.value.detach()),
            wide(call.output.detach()[:, :, rows]),
            wide(torch.stack([grad[:, :, rows] for grad in gradients], dim=2)),
        )


def _check_average(gradients: Float[Tensor, "batch targets tokens dim"], spec: str) -> None:
    """The tokens of an average all matter equally; of a maximum, say, they do not."""
    size = gradients.abs().amax(dim=(2, 3), keepdim=True)
    allowed = 1e-2 if size.dtype == torch.float32 else 1e-6
    if bool(((gradients - gradients[:, :, :1]).abs() > allowed * size).any()):
        raise ModelError(
            f"the head of {spec} does not average the tokens it pools, so no one readout speaks "
            "for them; use a model with a class token, average or attention pooling."
        )


def _needs_grad(output: Tensor | None) -> bool:
    return output is not None and output.requires_grad


def record(model: Model, images: Float[Tensor, "batch 3 height width"]) -> Trace:
    """Run a model once on a preprocessed batch and keep what methods need.

    The forward is the model's own, in evaluation mode; only its tail, from the last block on,
    keeps a graph. The model is as before afterwards, also when it raises.

    Raises:
        ModelError: if the forward fails, returns no (B, C) output, or its attention is not seen.
    """
    if any(parameter.is_inference() for parameter in model.module.parameters()):
        raise ModelError(
            f"{model.spec} was built inside torch.inference_mode, which forbids gradients through "
            "it; build it outside."
        )
    recorder, anatomy = Recorder(), model.anatomy
    with _plain_autograd(model), torch.no_grad():
        images = images.to(model.device, model.dtype).clone()
        with watching(anatomy, recorder, tail_graph=True) as seen, recorder:
            try:
                output: Any = anatomy.forward(model.module, images)
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ModelError(
                    f"{model.spec} cannot run on a batch of shape {tuple(images.shape)}: {error}"
                ) from error
    _check_output(model, output, len(images))
    calls = _on_the_way(recorder.calls, output)
    _check_seen(model, calls, seen)
    tokens = seen.inputs[0] if seen.inputs else _flat(anatomy.pool, seen.pooled)
    grid = model.layout.grid_for((images.shape[-2], images.shape[-1]), tokens.shape[1])
    return Trace(model, images, output.detach(), calls, grid, seen, output)


def _on_the_way(calls: list[AttentionCall], output: Tensor) -> list[AttentionCall]:
    """Without the attention after the last block that the output does not depend on."""
    tail = [call for call in calls if call.place == TAIL and _needs_grad(call.output)]
    if not tail:
        return [call for call in calls if call.place != TAIL]
    at = [call.output for call in tail if call.output is not None]
    with torch.enable_grad():
        found = torch.autograd.grad(output.sum(), at, retain_graph=True, allow_unused=True)
    used = [call for call, grad in zip(tail, found, strict=True) if grad is not None]
    return [call for call in calls if call.place != TAIL] + used


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


def _check_seen(model: Model, calls: list[AttentionCall], seen: Seen) -> None:
    """Refuse a model whose readout was not seen at work."""
    layout, depth = model.layout, len(model.anatomy.blocks)
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
        yield
