"""Every family, every readout: read correctly, explained correctly, left as it was."""

from __future__ import annotations

import copy
import re
from functools import cache

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from gradtoken.targets import ClassTarget, OutputTarget, Targets, resolve
from gradtoken.trace.gradients import readouts
from gradtoken.trace.record import record
from gradtoken.trace.trace import Trace
from tests.models.by_hand import gradient_times_attention
from tests.models.default_by_hand import leaky_by_hand, spread_by_hand
from tests.models.zoo import ZOO, seeded
from tests.snapshot import Snapshot

NAMES = list(ZOO)
NOT_PRE_NORM = ["vit_base_patch16_rpn_224", "vit_small_patch16_18x2_224"]
A, B = 1, 3


def first(output: Tensor) -> Tensor:
    return output[A]


def second(output: Tensor) -> Tensor:
    return output[B]


TARGETS = [OutputTarget(first), OutputTarget(second)]


@cache
def model_of(name: str) -> Model:
    return gradtoken.wrap(seeded(ZOO[name].build))


@cache
def images_of(name: str) -> Tensor:
    size = ZOO[name].size
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3)).double()


@cache
def trace_of(name: str) -> Trace:
    return record(model_of(name), images_of(name))


def targets_of(trace: Trace):
    return resolve(TARGETS, trace.logits, trace.model.labels)


def grouped(name: str) -> object:
    """One model's tests go to one worker, which builds and traces it once."""
    return pytest.param(name, marks=pytest.mark.xdist_group(name))


@pytest.fixture(params=map(grouped, NAMES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_zoo_has_enough_models() -> None:
    assert len(NAMES) >= 45


def test_wrap_reads_layout_and_readout(name: str) -> None:
    entry, model, trace = ZOO[name], model_of(name), trace_of(name)
    assert trace.grid == entry.grid
    assert model.layout.prefix == entry.prefix
    assert model.anatomy.readout == entry.readout
    with torch.no_grad():
        expected = model.anatomy.forward(model.module, images_of(name))
    torch.testing.assert_close(trace.logits, expected, rtol=1e-10, atol=1e-12)


def test_explain_differs_by_class_and_leaves_model_unchanged(name: str) -> None:
    model = model_of(name)
    before = Snapshot(model.module)
    actual = gradtoken.explain(model, images_of(name), TARGETS)
    before.check(model.module)
    assert actual.tokens.shape == (2, 2, *ZOO[name].grid)
    one, other = actual.tokens[0].flatten(1)
    assert (one - other).abs().max() > 0.1 * one.abs().max()


def test_explain_batch_equals_single_images(name: str) -> None:
    model, images = model_of(name), images_of(name)
    together = gradtoken.explain(model, images, TARGETS).tokens
    apart = [gradtoken.explain(model, image[None], TARGETS).tokens for image in images]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-5, atol=1e-9)


def test_record_keeps_requested_blocks_only(name: str) -> None:
    trace = trace_of(name)
    if not trace.model.layout.rows:
        pytest.skip("no token to follow through the blocks")
    method = make_method("gradtoken", layers="last")
    start = method.first_block(trace.depth)
    assert not method.needs_queries()
    affinity = method.affinity_blocks(trace.depth)
    short = record(trace.model, images_of(name), start=start, queries=False, affinity=affinity)
    assert {call.place for call in short.block_calls} == {trace.depth - 1}
    assert {call.query.shape[2] for call in short.block_calls} == {0}
    actual, expected = (method(one, targets_of(one)) for one in (short, trace))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def test_stream_gradient_equals_full_gradient_in_last_two_blocks(name: str) -> None:
    trace = trace_of(name)
    if not trace.model.layout.rows:
        pytest.skip("no token to follow through the blocks")
    targets = targets_of(trace)
    stream, full = (readouts(trace, targets, gradient=kind) for kind in ("stream", "full"))
    rows = slice(0, len(trace.model.layout.rows))
    if trace.model.layout.pool is not None:
        pytest.skip("the pooled tokens read the class token's blocks too")
    for one, other in zip(stream.blocks[-2:], full.blocks[-2:], strict=True):
        for a, b in zip(one, other, strict=True):
            scale = float(b.gradient.abs().max())
            torch.testing.assert_close(
                a.gradient, b.gradient[:, :, :, rows], rtol=1e-7, atol=1e-9 * scale
            )


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_explain_equals_equations_by_hand(name: str, beta: float) -> None:
    """The full gradient in every step, against attention written out and plain autograd."""
    trace = trace_of(name)
    options = {"beta": beta, "depth": 0, "rectify": None, "rivals": 0, "spread": None}
    method = make_method("gradtoken", gradient="full", **options)
    actual = method(trace, targets_of(trace))[0, 0]
    expected = by_hand(trace, images_of(name)[:1], A, beta, unused(name))
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-8 * scale)


def by_hand(trace: Trace, image: Tensor, label: int, beta: float, idle: int) -> Tensor:
    """Relevance of the spatial tokens (N,): attention steps of the readout, and the average."""
    model = trace.model
    spatial, layout, anatomy = trace.spatial, model.layout, model.anatomy
    pooled: list[Tensor] = []
    hook = None
    if anatomy.pool is not None and anatomy.pool.at_input:
        hook = anatomy.pool.module.register_forward_pre_hook(lambda _, args: pooled.append(args[0]))
    elif anatomy.pool is not None:
        hook = anatomy.pool.module.register_forward_hook(
            lambda _, args, out: pooled.append(out[0] if isinstance(out, tuple) else out)
        )
    total = torch.zeros(spatial, dtype=torch.float64)
    with model.evaluating():
        if anatomy.blocks:
            shares = gradient_times_attention(
                lambda x: anatomy.forward(model.module, x), image, label, beta
            )
            in_blocks = len(trace.block_calls)
            others = len(trace.tail_calls)
            shares = shares[len(shares) - in_blocks - others - idle :]
            for index, share in enumerate(shares):
                rows = trace.rows() if index < in_blocks else slice(None)
                if share.shape[-1] >= spatial and (index < in_blocks or not layout.rows):
                    total += share[rows].sum(0)[-spatial:]
        if hook is not None:
            pooled.clear()
            with torch.enable_grad():
                output = anatomy.forward(model.module, image.clone().requires_grad_())
                (grad,) = torch.autograd.grad(output[0, label], pooled[-1])
            flat = [anatomy.pool.flat(t.detach())[0] for t in (pooled[-1], grad)]
            start = layout.pool or 0
            count = len(flat[0]) - start
            share = (flat[0] * flat[1]).sum(-1) * count ** (1 - beta)
            share[:start] = 0
            total += share[-spatial:]
    if hook is not None:
        hook.remove()
    return total


def test_explain_default_equals_equations_on_its_steps(name: str) -> None:
    """Rivals, leaky rectification and spread, written out on the steps that are verified above."""
    trace = trace_of(name)
    target = OutputTarget(first) if trace.model.prompts else ClassTarget(A)
    actual = make_method("gradtoken")(trace, Targets([[target]] * 2))[0, 0]
    softmax = trace.model.activation == "softmax" and not trace.model.prompts
    expected = spread_by_hand(trace, leaky_by_hand(trace, A, 12 if softmax else 0))
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-8 * scale)


def unused(name: str) -> int:
    """Attention after the last block that the output does not depend on."""
    return 1 if name == "SiglipForImageClassification" else 0


def test_faithful_preset_is_complete(name: str) -> None:
    """Relevance over all tokens sums to gradient x output of the readout, in every step."""
    trace = trace_of(name)
    targets = targets_of(trace)
    for gradient in ("stream", "full"):
        actual = readouts(trace, targets, gradient=gradient)
        steps = [step for block in actual.blocks for step in block] + actual.tail
        expected = sum(torch.einsum("bhkrd,bhrd->bk", s.gradient, s.output) for s in steps)
        method = make_method("gradtoken", preset="faithful", gradient=gradient)
        total = method.all_tokens(trace, targets).sum(-1)
        torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-9)


def test_explain_with_eager_attention(name: str) -> None:
    module = copy.deepcopy(model_of(name).module)
    switched = 0
    for part in module.modules():
        if getattr(part, "fused_attn", None) is True:
            part.fused_attn = False
            switched += 1
        config = getattr(part, "config", None)
        if getattr(config, "_attn_implementation", None) == "sdpa":
            config._attn_implementation = "eager"
            switched += 1
    if not switched:
        pytest.skip("has no eager attention to switch to")
    images = images_of(name)
    model = gradtoken.wrap(module)
    with torch.no_grad():
        eager = model.anatomy.forward(module, images)
    torch.testing.assert_close(eager, trace_of(name).logits, rtol=1e-6, atol=1e-8)
    before = Snapshot(module)
    actual = gradtoken.explain(model, images, TARGETS).tokens
    before.check(module)
    expected = gradtoken.explain(model_of(name), images, TARGETS).tokens
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-9)
    with torch.no_grad():
        again = model.anatomy.forward(module, images)
    assert torch.equal(eager, again)


ATTENTION_METHODS = {
    "raw-attention": {},
    "rollout": {},
    "grad-rollout": {},
    "gae": {},
    "grad-cam": {},
    "grad-sam": {},
    "agcam": {},
    "legrad": {},
    "cdam": {"gradient": "smooth", "steps": 2},
    "attcat": {},
    "tokentm": {},
    "beyond-intuition": {"variant": "token", "steps": 2},
    "tam": {"steps": 2},
    "daam": {},
    "gmar": {},
    "grad-eclip": {},
    "fullgrad-plus": {},
    "transformer-attribution": {},
    "partial-lrp": {},
    "attnlrp": {},
    "recipro-cam": {},
    "iia": {"steps": 1},
}
SIGNED = ("cdam", "attcat", "attnlrp", "fullgrad-plus")
FROM_A_CLASS_TOKEN = ("transformer-attribution", "partial-lrp", "attnlrp")
LEAST_DIFFERENT = {"tokentm": 1e-7, "iia": 1e-6}
"""Relative to the largest relevance; TokenTM's is mostly the norms of the tokens, IIA's the
identity in its rollout, which no class changes."""
PRE_NORM = ("grad-cam", "cdam", "tokentm", "beyond-intuition", "recipro-cam")
OF_ANY_ATTENTION = ("raw-attention", "fullgrad-plus", "recipro-cam")
OF_FREE_TOKENS = ("legrad", "recipro-cam")
"""Methods that let a model go on with other tokens, which PiT's stages do not take."""


@pytest.mark.parametrize("method", ATTENTION_METHODS)
def test_attention_methods_work_or_raise_method_error(name: str, method: str) -> None:
    model, options = model_of(name), ATTENTION_METHODS[method]
    windowed = not model.anatomy.blocks
    kind = re.escape(type(model.module).__name__)
    class_attention = "class attention" in model.anatomy.readout
    mixed = class_attention or "18x2" in name
    if method in OF_ANY_ATTENTION or (method == "grad-eclip" and class_attention):
        mixed = False
    reshaped = name.startswith("pit_") and method in OF_FREE_TOKENS
    if windowed or reshaped or mixed:
        with pytest.raises(MethodError, match=f"{method} .*{kind}"):
            gradtoken.explain(model, images_of(name), TARGETS, method=method, **options)
        return
    if method in FROM_A_CLASS_TOKEN and (
        not model.layout.rows or model.layout.pool is not None or trace_of(name).tail_calls
    ):
        with pytest.raises(MethodError, match=f"{method} propagates relevance from a class token"):
            gradtoken.explain(model, images_of(name), TARGETS, method=method, **options)
        return
    if method == "grad-eclip" and not (model.layout.rows or trace_of(name).tail_calls):
        with pytest.raises(MethodError, match="grad-eclip needs a class token or an attention po"):
            gradtoken.explain(model, images_of(name), TARGETS, method=method, **options)
        return
    if method in PRE_NORM and name in NOT_PRE_NORM:
        with pytest.raises(MethodError, match=f"{method} needs blocks that normalise before"):
            gradtoken.explain(model, images_of(name), TARGETS, method=method, **options)
        return
    before = Snapshot(model.module)
    actual = gradtoken.explain(model, images_of(name), TARGETS, method=method, **options)
    before.check(model.module)
    assert torch.isfinite(actual.tokens).all()
    assert float(actual.tokens.min()) >= 0 or method in SIGNED
    if make_method(method).class_aware:
        one, other = actual.tokens[0].flatten(1)
        least = LEAST_DIFFERENT.get(method, 1e-3) * float(actual.tokens[0].abs().max())
        assert float((one - other).abs().max()) > least > 0
    alone = gradtoken.explain(model, images_of(name)[1:], TARGETS, method=method, **options)
    torch.testing.assert_close(alone.tokens[0], actual.tokens[1], rtol=1e-4, atol=1e-12)


def test_libra_gradients_are_complete_without_biases(name: str) -> None:
    """Gradient x token, summed over the tokens entering any block, is the score.

    So every operation between has a rule, and the right one. What is added to the tokens later
    counts as a bias: CaiT's and XCiT's class token.
    """
    module = copy.deepcopy(model_of(name).module)
    with torch.no_grad():
        for kind, values in (*module.named_parameters(), *module.named_buffers()):
            if "bias" in kind or kind.endswith(("cls_token", "running_mean")):
                values.zero_()
    trace = record(gradtoken.wrap(module), images_of(name))
    method = make_method("fullgrad-plus")
    if not trace.depth:
        with pytest.raises(MethodError, match="needs the tokens entering each block"):
            method(trace, targets_of(trace))
        return
    sums = method.by_block(trace, targets_of(trace)).sum(-1)
    scores = trace.logits[:, [A, B]].expand_as(sums)
    torch.testing.assert_close(sums, scores, rtol=1e-7, atol=1e-9)
    own = make_method("fullgrad-plus", libra=False).by_block(trace, targets_of(trace)).sum(-1)
    assert float((own - scores).abs().max()) > 0.1 * float(scores.abs().max())
