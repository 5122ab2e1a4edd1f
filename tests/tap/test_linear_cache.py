"""The stream's linear layers answer from the forward, with the same values and gradients."""

from __future__ import annotations

import pytest
import torch
from benchmarks.cost.operations import count
from torch import Tensor

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.models import Model
from gradtoken.tap.linear_cache import LinearCache, LinearCall
from gradtoken.targets import resolve
from gradtoken.trace import stream
from gradtoken.trace.gradients import readouts
from gradtoken.trace.record import record
from gradtoken.trace.trace import Trace
from tests.conftest import inputs, tiny_vit


def along(trace: Trace) -> list[Tensor]:
    targets = resolve([1, 4, 7], trace.logits, trace.model.labels)
    steps = [step for block in readouts(trace, targets, gradient="stream").blocks for step in block]
    return [part for s in steps for part in (s.attention, s.value, s.output, s.gradient)]


def computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    run = stream.run_recorded
    monkeypatch.setattr(stream, "run_recorded", lambda trace, _: run(trace, []))


def test_linear_cache_keeps_values_and_gradients(
    variant: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = record(variant, inputs(variant))
    known = along(trace)
    computed_anew(monkeypatch)
    for ours, anew in zip(known, along(trace), strict=True):
        torch.testing.assert_close(ours, anew, rtol=1e-10, atol=1e-12)


def test_linear_cache_saves_products(
    model: Model, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = record(model, batch)
    weights = [m.weight for m in model.module.blocks.modules() if isinstance(m, torch.nn.Linear)]
    assert [id(call.weight) for call in trace.linears] == [id(weight) for weight in weights]
    spent = count(lambda: along(trace))
    saved = 2 * len(batch) * sum(weight.numel() for weight in weights)
    computed_anew(monkeypatch)
    assert count(lambda: along(trace)) - spent == saved


def test_linear_calls_are_copies(model: Model, batch: Tensor) -> None:
    for call in record(model, batch).linears:
        for rows in (call.input, call.output):
            assert rows.untyped_storage().nbytes() == rows.numel() * rows.element_size()
            assert not rows.requires_grad


def test_linear_cache_answers_once_per_weight() -> None:
    weight, tokens = torch.randn(5, 4), torch.randn(2, 1, 4)
    made = tokens @ weight.T
    known = LinearCache([LinearCall(weight, tokens, made)])
    assert known.answer(tokens, weight.clone()) is None
    assert known.answer(tokens[:1], weight) is None
    torch.testing.assert_close(known.answer(tokens, weight), made)
    assert known.answer(tokens, weight) is None


def test_linear_cache_gap_is_the_largest() -> None:
    weight, tokens = torch.randn(5, 4), torch.ones(2, 1, 4)
    calls = [LinearCall(weight, tokens, tokens @ weight.T) for _ in range(2)]
    known = LinearCache(calls)
    assert known.gap() == 0
    known.answer(tokens, weight)
    known.answer(tokens * 1.5, weight)
    assert known.gap() == pytest.approx(0.5)


def test_wrap_rejects_block_that_mixes_before_linear() -> None:
    module = tiny_vit()

    class Mixing(type(module.blocks[1].mlp)):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + x.mean(dim=1, keepdim=True))

    module.blocks[1].mlp.__class__ = Mixing
    with pytest.raises(ModelError, match=r"block 1 of .* mixes tokens in another way"):
        gradtoken.wrap(module)


def test_stream_falls_back_to_computed_layers(batch: Tensor) -> None:
    """A layer that is fed otherwise for one token, to no effect, is computed and not answered."""
    module = tiny_vit()
    with torch.no_grad():
        module.blocks[1].mlp.fc1.weight[:, 0] = 0

    class Marking(type(module.blocks[1].mlp)):
        def forward(self, x: Tensor) -> Tensor:
            mark = torch.zeros_like(x)
            mark[..., 0] = x.shape[1]
            return super().forward(x + mark)

    plain = gradtoken.explain(gradtoken.wrap(module), batch, 3).tokens
    module.blocks[1].mlp.__class__ = Marking
    trace = record(gradtoken.wrap(module), batch)
    assert stream.run_recorded(trace, trace.linears).gap > 1e-3
    marked = gradtoken.explain(gradtoken.wrap(module), batch, 3).tokens
    torch.testing.assert_close(marked, plain, rtol=1e-6, atol=1e-9)
