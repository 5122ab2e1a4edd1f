"""One forward, the stream, and a model that is left as it was found."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.models import Model
from gradtoken.tap.frozen_context import run_stream
from gradtoken.tap.linear_cache import LinearCache
from gradtoken.trace.record import record
from tests.conftest import images_for, inputs, tiny_vit

METHODS = ["gradtoken", "raw-attention", "rollout"]


class Snapshot:
    """Everything about a module that an explanation must not change."""

    def __init__(self, module: nn.Module) -> None:
        self.state = copy.deepcopy(module.state_dict())
        self.modes = [m.training for m in module.modules()]
        self.grads = [p.grad for p in module.parameters()]
        self.flags = [p.requires_grad for p in module.parameters()]
        self.hooks = [self._hooks(m) for m in module.modules()]
        self.attributes = [sorted(vars(m)) for m in module.modules()]
        self.rng = torch.get_rng_state()
        self.grad_enabled = torch.is_grad_enabled()

    @staticmethod
    def _hooks(module: nn.Module) -> tuple[list[int], ...]:
        return tuple(
            list(getattr(module, name))
            for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        )

    def check(self, module: nn.Module) -> None:
        now = Snapshot(module)
        pairs = zip(self.state.values(), now.state.values(), strict=True)
        assert all(torch.equal(before, after) for before, after in pairs)
        assert self.modes == now.modes
        assert all(a is b for a, b in zip(self.grads, now.grads, strict=True))
        assert self.flags == now.flags
        assert self.hooks == now.hooks
        assert self.attributes == now.attributes
        assert torch.equal(self.rng, now.rng)
        assert self.grad_enabled == now.grad_enabled
        assert len(torch.overrides._get_current_function_mode_stack()) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [{}, {"gradient": "full"}], ids=["stream", "full"])
def test_the_model_is_as_before(method: str, options: dict, batch: Tensor) -> None:
    if options and method != "gradtoken":
        options = {}
    module = tiny_vit(drop_path_rate=0.3, proj_drop_rate=0.2)
    module.train()
    module.blocks[1].eval()
    module.head.weight.grad = torch.ones_like(module.head.weight)
    module.blocks[0].requires_grad_(False)
    module.blocks[2].register_forward_hook(lambda *args: None)
    model = gradtoken.wrap(module)
    before = Snapshot(module)
    first = gradtoken.explain(model, batch, [1, 2], method=method, **options)
    before.check(module)
    again = gradtoken.explain(model, batch, [1, 2], method=method, **options)
    assert torch.equal(first.tokens, again.tokens)
    module.eval()
    assert torch.equal(
        first.tokens, gradtoken.explain(model, batch, [1, 2], method=method, **options).tokens
    )


def test_the_model_is_as_before_after_an_exception(batch: Tensor) -> None:
    module = tiny_vit().train()
    model = gradtoken.wrap(module)
    before = Snapshot(module)

    def fail(_: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gradtoken.explain(model, batch, fail)
    before.check(module)
    with pytest.raises(ModelError, match="cannot run on a batch of shape"):
        gradtoken.explain(model, torch.zeros(1, 3, 60, 60))
    before.check(module)


def test_parameters_get_no_gradient_and_nothing_requires_it(model: Model, batch: Tensor) -> None:
    found = gradtoken.explain(model, batch, [1, 2])
    assert all(p.grad is None and p.requires_grad for p in model.module.parameters())
    for tensor in (found.tokens, found.scores, found.probabilities):
        assert not tensor.requires_grad


def test_one_forward_serves_all_targets(model: Model, batch: Tensor) -> None:
    calls = []
    handle = model.module.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    gradtoken.explain(model, batch, list(range(10)))
    handle.remove()
    assert len(calls) == 1


def test_the_forward_keeps_a_graph_of_its_tail_only(model: Model, batch: Tensor) -> None:
    trace = record(model, batch)
    for call in trace.calls:
        assert not any(t.requires_grad for t in (call.query, call.key, call.value))
        assert call.output is None
    assert not trace.logits.requires_grad
    leaf = trace.seen.outputs[trace.depth - 1]
    assert leaf.is_leaf
    (found,) = torch.autograd.grad(trace.output[:, 3].sum(), leaf)
    last = leaf.detach().clone().requires_grad_()
    logits = model.module.forward_head(model.module.norm(last))
    torch.testing.assert_close(found, torch.autograd.grad(logits[:, 3].sum(), last)[0])


def test_keys_and_values_are_not_copied(model: Model, batch: Tensor) -> None:
    trace = record(model, batch)
    for call in trace.calls:
        assert call.key.untyped_storage().data_ptr() == call.value.untyped_storage().data_ptr()


def test_the_stream_leads_to_the_models_logits(variant: Model) -> None:
    images = inputs(variant)
    trace = record(variant, images)
    torch.testing.assert_close(trace.logits, variant(images), rtol=0, atol=0)
    stream = run_stream(
        variant.anatomy, variant.layout.rows, trace.seen, trace.calls, LinearCache([])
    )
    logits = variant.module.forward_head(variant.module.norm(stream.tokens[trace.depth - 1]))
    torch.testing.assert_close(logits, trace.logits, rtol=1e-10, atol=1e-12)


def test_what_follows_the_blocks_is_the_models_own(batch: Tensor) -> None:
    class Sharper(type(tiny_vit())):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2 + 1

    module = tiny_vit()
    plain = gradtoken.explain(gradtoken.wrap(module), batch, 1, beta=1).tokens
    module.__class__ = Sharper
    found = gradtoken.explain(gradtoken.wrap(module), batch, 1, beta=1).tokens
    torch.testing.assert_close(found, 2 * plain)


def test_a_stream_that_is_not_the_model_is_refused(batch: Tensor) -> None:
    class Shifted(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            for block in self:
                x = block(x) + 0.1
            return x

    module = tiny_vit()
    module.blocks.__class__ = Shifted
    model = gradtoken.wrap(module)
    with pytest.raises(ModelError, match=r'does not lead where .* leads.*use gradient="full"'):
        gradtoken.explain(model, batch, 1)
    assert gradtoken.explain(model, batch, 1, gradient="full").tokens.abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_eager_attention_is_explained_as_fused(batch: Tensor, method: str) -> None:
    module = tiny_vit()
    fused = gradtoken.explain(gradtoken.wrap(module), batch, [1, 2], method=method).tokens
    for block in module.blocks:
        block.attn.fused_attn = False
    before = Snapshot(module)
    eager = gradtoken.explain(gradtoken.wrap(module), batch, [1, 2], method=method).tokens
    torch.testing.assert_close(eager, fused)
    before.check(module)
    assert not any(block.attn.fused_attn for block in module.blocks)


def test_attention_by_hand_is_refused_with_the_remedy(batch: Tensor) -> None:
    class ByHand(type(tiny_vit().blocks[0].attn)):
        def forward(self, x: Tensor, **_: object) -> Tensor:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
            out = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
            return self.proj(out.transpose(1, 2).flatten(2))

    module = tiny_vit()
    module.blocks[2].attn.__class__ = ByHand
    with pytest.raises(ModelError, match=r"4 blocks but attention was seen in 3.*fused attention"):
        gradtoken.explain(gradtoken.wrap(module), batch, 1)


def test_a_model_without_logits_is_refused(batch: Tensor) -> None:
    module = tiny_vit()
    module.head = nn.Unflatten(1, (6, 8))
    with pytest.raises(
        ModelError, match=r"returned a tensor of shape \(1, 6, 8\) where logits \(B, C\) are"
    ):
        gradtoken.explain(gradtoken.wrap(module), batch, 1)


def test_nan_logits_are_refused(batch: Tensor) -> None:
    module = tiny_vit()
    with torch.no_grad():
        module.head.bias.fill_(torch.nan)
    with pytest.raises(ModelError, match="NaN or infinite logits"):
        gradtoken.explain(gradtoken.wrap(module), batch, 1)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_inside_any_grad_mode(model: Model, batch: Tensor, context) -> None:
    expected = gradtoken.explain(model, batch, [1, 2]).tokens
    with context():
        found = gradtoken.explain(model, batch.clone(), [1, 2])
    assert torch.equal(found.tokens, expected)


def test_nested_explanations(model: Model, batch: Tensor) -> None:
    expected = gradtoken.explain(model, batch, 1, target="logit").tokens
    inner = []

    def target(logits: Tensor) -> Tensor:
        inner.append(gradtoken.explain(model, batch, 1, target="logit").tokens)
        return logits[1]

    outer = gradtoken.explain(model, batch, target)
    torch.testing.assert_close(outer.tokens, expected)
    assert all(torch.equal(tokens, expected) for tokens in inner)


def test_many_threads_share_one_model() -> None:
    module = tiny_vit(drop_path_rate=0.5, proj_drop_rate=0.5).train()
    models = [gradtoken.wrap(module), gradtoken.wrap(module)]
    model = models[0]
    batches = [images_for((64, 64), 1 + i % 3) for i in range(12)]
    alone = [gradtoken.explain(model, b, [i % 10]).tokens for i, b in enumerate(batches)]
    before = Snapshot(module)
    start = threading.Barrier(4)

    def work(i: int) -> Tensor:
        if i < 4:
            start.wait()
        return gradtoken.explain(models[i % 2], batches[i], [i % 10]).tokens

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(12)))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other)
    before.check(module)


def test_bfloat16_maps_rank_tokens_as_float32_does() -> None:
    module = tiny_vit().float()
    images = images_for((64, 64), 4).float()
    exact = (
        gradtoken.explain(gradtoken.wrap(module), images, [1, 2]).tokens.flatten(0, 1).flatten(1)
    )
    half = (
        gradtoken.explain(gradtoken.wrap(copy.deepcopy(module).bfloat16()), images, [1, 2])
        .tokens.flatten(0, 1)
        .flatten(1)
    )
    ranks = [t.argsort(-1).argsort(-1).double() for t in (exact, half)]
    for one, other in zip(*ranks, strict=True):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.98
    assert half.dtype == torch.float32


def test_autocast(batch: Tensor) -> None:
    model = gradtoken.wrap(tiny_vit().float())
    exact = gradtoken.explain(model, batch, [1, 2]).tokens
    with torch.autocast("cpu", torch.bfloat16):
        found = gradtoken.explain(model, batch, [1, 2]).tokens
    assert torch.corrcoef(torch.stack([exact.flatten(), found.flatten()]))[0, 1] > 0.98


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_as_on_the_cpu(batch: Tensor) -> None:
    module = tiny_vit().float()
    expected = gradtoken.explain(gradtoken.wrap(module), batch, [1, 2]).tokens
    found = gradtoken.explain(gradtoken.wrap(module.cuda()), batch, [1, 2]).tokens
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-5)
