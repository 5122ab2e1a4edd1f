"""One forward through a model, and everything a method may ask of it.

The forward runs once and keeps no graph; the tap holds references to each attention call's keys
and values. What depends on a class is computed on demand: along the readout token's own stream, or
by backpropagation through the whole model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.models.model import Model
from gradtoken.tap import AttentionCall, FrozenContext, Recorder, wide
from gradtoken.targets import Targets

_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}
"""How far the stream's logits may be from the model's, relative to the largest logit."""

_STREAM_ELEMENTS = 1 << 23
"""Attention weights of one chunk of targets per block; more targets run in several chunks."""


@dataclass(frozen=True)
class Readout:
    """What one block's attention wrote into the readout token, and what each target makes of it."""

    attention: Float[Tensor, "batch heads tokens"]
    value: Float[Tensor, "batch heads tokens width"]
    output: Float[Tensor, "batch heads width"]
    gradient: Float[Tensor, "batch heads targets width"]
    """The class-aware gradient: of each target's score by `output`."""


@dataclass(frozen=True)
class Trace:
    """One recorded forward. Made by `record`."""

    model: Model
    images: Float[Tensor, "batch 3 height width"]
    logits: Float[Tensor, "batch classes"]
    calls: list[AttentionCall]
    grid: tuple[int, int]
    block_inputs: dict[int, Float[Tensor, "batch tokens dim"]]

    @property
    def depth(self) -> int:
        """L, the number of transformer blocks."""
        return len(self.calls)

    @property
    def affinity_tokens(self) -> Float[Tensor, "batch patches dim"]:
        """The spatial tokens entering the second-last block."""
        return self.block_inputs[_affinity_block(self.depth)][:, self.model.layout.prefix :]

    def readouts(self, targets: Targets, *, gradient: str = "stream") -> list[Readout]:
        """Attention, values, output and class-aware gradient at the readout token of every block.

        Args:
            targets: K targets for each image.
            gradient: "stream" (along the readout token alone, the other tokens' keys and values
                frozen) or "full" (backpropagation through the whole model).

        Raises:
            ModelError: if the stream does not give the model's own logits.
        """
        return self._stream(targets) if gradient == "stream" else self._full(targets)

    def _stream(self, targets: Targets) -> list[Readout]:
        batch, heads, tokens, _ = self.calls[0].key.shape
        step = max(1, _STREAM_ELEMENTS // (batch * heads * tokens))
        attention: list[Tensor] = []
        outputs: list[Tensor] = []
        chunks = []
        for start in range(0, targets.count, step):
            tap, gradients = self._stream_chunk(targets[start : start + step])
            chunks.append(gradients)
            if start == 0:
                attention = [a[:, :, 0].detach().clone() for a in tap.attention]
                outputs = [wide(o[:, :, 0].detach()).clone() for o in tap.outputs]
        return [
            Readout(a, wide(call.value), o, wide(torch.cat(parts, dim=2)))
            for call, a, o, *parts in zip(self.calls, attention, outputs, *chunks, strict=True)
        ]

    def _stream_chunk(self, targets: Targets) -> tuple[FrozenContext, tuple[Tensor, ...]]:
        layout, stream = self.model.layout, self.model.stream
        start = self.block_inputs[0][:, layout.readout : layout.readout + 1]
        with _plain_autograd(self.model), torch.enable_grad():
            token = start.detach().repeat_interleave(targets.count, dim=0).requires_grad_()
            tap = FrozenContext(self.calls, layout.readout)
            with tap:
                for block in stream.blocks:
                    token = block(token)
            logits = stream.head(token).unflatten(0, (len(self.logits), targets.count))
            self._check_stream(logits[:, 0].detach())
            total = targets.scores(wide(logits)).sum()
            gradients = _grad(total, tap.outputs)
        return tap, gradients

    def _check_stream(self, logits: Float[Tensor, "batch classes"]) -> None:
        expected = wide(self.logits)
        gap = float((wide(logits) - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
        allowed = _TOLERANCE[self.calls[0].key.dtype]
        if not gap <= allowed:
            raise ModelError(
                f"the class token's own stream gives other logits than {self.model.spec} (relative "
                f"difference {gap:.2g}, at most {allowed:g} is rounding), so the model does more "
                'with it than its blocks and head; use gradient="full".'
            )

    def _full(self, targets: Targets) -> list[Readout]:
        row = self.model.layout.readout
        recorder = Recorder()
        with _plain_autograd(self.model), torch.enable_grad():
            images = self.images.clone().requires_grad_()
            with recorder:
                logits = self.model.module(images)
            outputs = [call.output for call in recorder.calls if call.output is not None]
            scores = targets.scores(wide(logits)[:, None].expand(-1, targets.count, -1)).sum(0)
            gradients: list[list[Tensor]] = [[] for _ in outputs]
            for k, score in enumerate(scores):
                keep = k + 1 < targets.count
                for found, grad in zip(gradients, _grad(score, outputs, keep), strict=True):
                    found.append(grad[:, :, row])
        return [
            Readout(
                call.rows(row)[:, :, 0].detach(),
                wide(call.value.detach()),
                wide(output[:, :, row].detach()),
                wide(torch.stack(found, dim=2)),
            )
            for call, output, found in zip(recorder.calls, outputs, gradients, strict=True)
        ]


def _grad(score: Tensor, outputs: list[Tensor], retain_graph: bool = False) -> tuple[Tensor, ...]:
    found = torch.autograd.grad(score, outputs, retain_graph=retain_graph, allow_unused=True)
    return tuple(
        torch.zeros_like(o) if g is None else g for o, g in zip(outputs, found, strict=True)
    )


def record(model: Model, images: Float[Tensor, "batch 3 height width"]) -> Trace:
    """Run a model once on a preprocessed batch and keep what methods need.

    The forward is the model's own, in evaluation mode and without a graph. The model is as before
    afterwards, also when it raises.

    Raises:
        ModelError: if the forward fails, returns no (B, C) logits, or its attention is not seen.
    """
    if any(parameter.is_inference() for parameter in model.module.parameters()):
        raise ModelError(
            f"{model.spec} was built inside torch.inference_mode, which forbids gradients through "
            "it; build it outside."
        )
    recorder = Recorder()
    with _plain_autograd(model), torch.no_grad():
        images = images.to(model.device, model.dtype).clone()
        with _block_inputs(model) as block_inputs, recorder:
            try:
                logits: Any = model.module(images)
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ModelError(
                    f"{model.spec} cannot run on a batch of shape {tuple(images.shape)}: {error}"
                ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(
            f"{model.spec} returned {shape} for {len(images)} images where logits (B, C) are "
            "needed; give it a classification head."
        )
    if logits.shape[-1] != len(model.labels):
        raise ModelError(
            f"{model.spec} returned {logits.shape[-1]} logits but has {len(model.labels)} labels; "
            "wrap it again, with labels=[…] of as many names."
        )
    depth = len(model.stream.blocks)
    if len(recorder.calls) != depth:
        raise ModelError(_missed(model, depth, len(recorder.calls)))
    grid = model.layout.grid_for(
        (images.shape[-2], images.shape[-1]), recorder.calls[-1].key.shape[-2]
    )
    return Trace(model, images, logits, recorder.calls, grid, block_inputs)


def _missed(model: Model, depth: int, seen: int) -> str:
    counted = (
        f"{model.spec} has {depth} blocks but {seen} calls of scaled_dot_product_attention were "
    )
    if seen > depth:
        return counted + "seen; blocks with several attention calls are not supported."
    return counted + (
        "seen, because it computes attention by hand; build it with fused attention "
        "(timm.layers.set_fused_attn(True) before timm.create_model)."
    )


def _affinity_block(depth: int) -> int:
    return max(depth - 2, 0)


@contextmanager
def _plain_autograd(model: Model) -> Iterator[None]:
    """Evaluation mode, with autograd usable even inside a caller's `torch.inference_mode`."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(model.evaluating())
        yield


@contextmanager
def _block_inputs(model: Model) -> Iterator[dict[int, Tensor]]:
    """Catch the tokens entering the first and second-last block, in this thread's forward only."""
    caught: dict[int, Tensor] = {}
    blocks = model.stream.blocks
    with ExitStack() as stack:
        for index in {0, _affinity_block(len(blocks))}:
            handle = blocks[index].register_forward_pre_hook(_catch(caught, index))
            stack.callback(handle.remove)
        yield caught


def _catch(caught: dict[int, Tensor], index: int) -> Callable[[Any, tuple[Any, ...]], None]:
    thread = threading.get_ident()

    def hook(_: Any, args: tuple[Any, ...]) -> None:
        if threading.get_ident() == thread:
            caught[index] = args[0]

    return hook
