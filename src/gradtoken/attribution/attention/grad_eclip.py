"""Grad-ECLIP: values of the last attention by the gradient at what it writes into the class token.

Its channels are weighted by the gradient, its tokens by how alike their keys are to the class
token's query, in place of the softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.errors import MethodError, NotSupportedError
from gradtoken.images.patch_grid import pick
from gradtoken.precision import full_precision, wide
from gradtoken.tap.anatomy import run_with_arguments
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.attention_tap import AttentionTap
from gradtoken.tap.norms import Norms
from gradtoken.tap.recorder import Recorder
from gradtoken.targets import Targets
from gradtoken.trace.autograd import output_gradients
from gradtoken.trace.backward import backward_through_model
from gradtoken.trace.gradients import readouts
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.readout import Readout
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class GradECLIP(GradientMethod):
    """R_i = (lambda_i sum_c dy/do_c v_ic)+, lambda_i = cos(q, k_i) scaled to 0..1 over the patches.

    o is what the last block's attention writes into the class token, before its projection; q is
    that token's query, k and v are keys and values, with the channels c of all heads. With a
    distillation token the sum over both; of an attention pool, its own query and output.

    Args:
        heads: "model": the model's own attention. "one": as the published code, the last block's
            attention is computed again with a single head over all channels, which explains a
            changed model; its similarity is that of queries and keys after the projection.
    """

    name: ClassVar[str] = "grad-eclip"
    summary: ClassVar[str] = "last attention's values by gradient and query-key similarity"
    source: ClassVar[str] = "Zhao et al., Gradient-based Visual Explanation for CLIP, ICML 2024"

    heads: Literal["model", "one"] = "model"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads not in ("model", "one"):
            raise MethodError(f"grad-eclip's heads is {self.heads!r}; it can be 'model' or 'one'.")

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        trace.check_one_chain()
        if self.heads == "one":
            return self._one_head(trace, targets)
        if not (trace.tail_calls or trace.model.layout.rows):
            raise NotSupportedError(
                f"needs a class token or an attention pool, and {trace.model.spec} reads its class "
                f"as {trace.model.anatomy.readout}; use gradtoken."
            )
        found = readouts(trace, targets, gradient="full", libra=self.libra)
        if trace.model.layout.rows:
            trace.global_calls()
            rows, call = list(trace.model.layout.rows), trace.block_calls[-1]
            step, query = _at_rows(found.blocks[-1][-1], trace, rows), call.query[:, :, rows]
        else:
            trace.tail_keys()
            call, step = trace.tail_calls[-1], found.tail[-1]
            query = call.query
        return _relevance(step, joined(query), joined(call.key), trace.spatial)

    def _one_head(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        trace.global_calls()
        rows = list(trace.model.layout.rows)
        if not rows or trace.tail_calls:
            raise NotSupportedError(
                'with heads="one" needs a class token in the last block, and '
                f"{trace.model.spec} reads its class as {trace.model.anatomy.readout}; use "
                'heads="model" or gradtoken.'
            )
        last = trace.depth - 1
        mask = trace.block_calls[last].mask
        if mask is not None and mask.ndim > 2 and mask.shape[-3] > 1:
            raise NotSupportedError(
                f'with heads="one" has one position bias, and {trace.model.spec} has one for each '
                'head; use heads="model".'
            )
        recorder = _OneHead(last, copies=trace.model.writes_in_place)
        seeds = partial(output_gradients, targets=targets, libra=self.libra)
        found = backward_through_model(trace, seeds, recorder=recorder, libra=self.libra)
        query, key = (_projected(trace, targets, part) for part in ("query", "key"))
        step = _at_rows(found.blocks[last][-1], trace, rows)
        return _relevance(step, query[:, rows], key, trace.spatial)


class _OneHead(Recorder):
    """Computes the attention of one block with a single head over all channels."""

    def __init__(self, block: int, *, copies: bool) -> None:
        super().__init__(copies=copies)
        self._block = block

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        if self.place != self._block:
            return super().attend(call, run)
        heads, width = call.query.shape[1], call.query.shape[-1]
        query, key, value = (joined(t)[:, None] for t in (call.query, call.key, call.value))
        one = replace(
            call, query=query, key=key, value=value, scale=(heads * width) ** -0.5, place=self.place
        )
        output = one.rows(slice(None)).to(value.dtype) @ value
        self.calls.append(replace(one, output=output))
        return self.writable(output[:, 0].unflatten(-1, (heads, width)).transpose(1, 2))


class _Passes(AttentionTap):
    """Passes queries or keys on as the output of attention."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        passed: Tensor = getattr(call, self._part)
        return passed


def _projected(trace: Trace, targets: Targets, part: str) -> Float[Tensor, "batch tokens dim"]:
    """The last block's queries or keys after its output projection, with its bias."""
    model, block = trace.model, trace.model.anatomy.blocks[-1]
    with forward_with_graph(trace, targets) as graph:
        tokens = graph.entering[-1].detach()
    with (
        model.evaluating(),
        torch.no_grad(),
        Norms(block, copies=model.writes_in_place) as norms,
        _Passes(part),
    ):
        run_with_arguments(block, model.writable(tokens), trace.block_record.arguments[-1])
    return wide(norms.middle()) - wide(tokens)


def joined(heads: Float[Tensor, "batch heads tokens width"]) -> Float[Tensor, "batch tokens dim"]:
    """The channels of all heads side by side."""
    return heads.transpose(1, 2).flatten(2)


def _at_rows(step: Readout, trace: Trace, rows: list[int]) -> Readout:
    """A block's step at some rows of its readout."""
    at = [trace.rows().index(row) for row in rows]
    return replace(
        step,
        attention=step.attention[:, :, at],
        output=step.output[:, :, at],
        gradient=step.gradient[:, :, :, at],
    )


def _relevance(
    step: Readout,
    query: Float[Tensor, "batch rows dim"],
    key: Float[Tensor, "batch tokens dim"],
    count: int,
) -> Float[Tensor, "batch targets patches"]:
    with full_precision(step.gradient):
        relation = torch.einsum("bhkrd,bhnd->bkrn", step.gradient, step.value)
        alike = F.normalize(wide(query), dim=-1) @ F.normalize(wide(key), dim=-1).mT
    patches, near = (_patches(values, step.order, count) for values in (relation, alike))
    low, high = near.amin(-1, keepdim=True), near.amax(-1, keepdim=True)
    weight = (near - low) / torch.where(high > low, high - low, 1)
    return (patches * weight[:, None]).sum(2).clamp_min(0)


def _patches(values: Tensor, order: tuple[int, ...] | None, count: int) -> Tensor:
    return values[..., -count:] if order is None else pick(values, order, values.shape[-1])
