"""Recording one forward, and leaving the model unchanged."""

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
from gradtoken.trace.record import record
from tests.conftest import images_for, tiny_vit
from tests.snapshot import Snapshot

METHODS = ["gradtoken", "raw-attention", "rollout"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [{}, {"gradient": "full"}], ids=["stream", "full"])
def test_record_leaves_model_unchanged(method: str, options: dict, batch: Tensor) -> None:
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


def test_record_leaves_model_unchanged_after_error(batch: Tensor) -> None:
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


def test_record_gives_no_gradient_to_parameters(model: Model, batch: Tensor) -> None:
    explanation = gradtoken.explain(model, batch, [1, 2])
    assert all(p.grad is None and p.requires_grad for p in model.module.parameters())
    for tensor in (explanation.tokens, explanation.scores, explanation.probabilities):
        assert not tensor.requires_grad


def test_record_runs_one_forward_for_all_targets(model: Model, batch: Tensor) -> None:
    calls = []
    handle = model.module.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    gradtoken.explain(model, batch, list(range(10)))
    handle.remove()
    assert len(calls) == 1


def test_record_keeps_graph_of_tail_only(model: Model, batch: Tensor) -> None:
    trace = record(model, batch)
    for call in trace.calls:
        assert not any(t.requires_grad for t in (call.query, call.key, call.value))
        assert call.output is None
    assert not trace.logits.requires_grad
    leaf = trace.block_record.outputs[trace.depth - 1]
    assert leaf.is_leaf
    (grad,) = torch.autograd.grad(trace.output[:, 3].sum(), leaf)
    last = leaf.detach().clone().requires_grad_()
    logits = model.module.forward_head(model.module.norm(last))
    torch.testing.assert_close(grad, torch.autograd.grad(logits[:, 3].sum(), last)[0])


def test_record_does_not_copy_keys_and_values(model: Model, batch: Tensor) -> None:
    trace = record(model, batch)
    for call in trace.calls:
        assert call.key.untyped_storage().data_ptr() == call.value.untyped_storage().data_ptr()


@pytest.mark.parametrize("method", METHODS)
def test_record_equal_for_eager_and_fused_attention(batch: Tensor, method: str) -> None:
    module = tiny_vit()
    fused = gradtoken.explain(gradtoken.wrap(module), batch, [1, 2], method=method).tokens
    for block in module.blocks:
        block.attn.fused_attn = False
    before = Snapshot(module)
    eager = gradtoken.explain(gradtoken.wrap(module), batch, [1, 2], method=method).tokens
    torch.testing.assert_close(eager, fused)
    before.check(module)
    assert not any(block.attn.fused_attn for block in module.blocks)


def test_record_rejects_attention_computed_by_hand(batch: Tensor) -> None:
    class ByHand(type(tiny_vit().blocks[0].attn)):
        def forward(self, x: Tensor, **_: object) -> Tensor:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
            out = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
            return self.proj(out.transpose(1, 2).flatten(2))

    module = tiny_vit()
    module.blocks[2].attn.__class__ = ByHand
    with pytest.raises(ModelError, match=r"4 blocks but attention was seen in 3.*fused attention"):
        gradtoken.explain(gradtoken.wrap(module), batch, 1)


def test_record_rejects_output_that_is_not_logits(batch: Tensor) -> None:
    module = tiny_vit()
    module.head = nn.Unflatten(1, (6, 8))
    with pytest.raises(
        ModelError, match=r"returned a tensor of shape \(1, 6, 8\) where logits \(B, C\) are"
    ):
        gradtoken.explain(gradtoken.wrap(module), batch, 1)


def test_record_rejects_nan_logits(batch: Tensor) -> None:
    module = tiny_vit()
    with torch.no_grad():
        module.head.bias.fill_(torch.nan)
    with pytest.raises(ModelError, match="NaN or infinite logits"):
        gradtoken.explain(gradtoken.wrap(module), batch, 1)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_record_in_any_grad_mode(model: Model, batch: Tensor, context) -> None:
    expected = gradtoken.explain(model, batch, [1, 2]).tokens
    with context():
        explanation = gradtoken.explain(model, batch.clone(), [1, 2])
    assert torch.equal(explanation.tokens, expected)


def test_record_inside_target_function(model: Model, batch: Tensor) -> None:
    expected = gradtoken.explain(model, batch, 1, rivals=0).tokens
    inner = []

    def target(logits: Tensor) -> Tensor:
        inner.append(gradtoken.explain(model, batch, 1, rivals=0).tokens)
        return logits[1]

    outer = gradtoken.explain(model, batch, target)
    torch.testing.assert_close(outer.tokens, expected)
    assert all(torch.equal(tokens, expected) for tokens in inner)


def test_record_in_threads_that_share_model() -> None:
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
    for apart, shared in zip(alone, together, strict=True):
        torch.testing.assert_close(apart, shared)
    before.check(module)


def test_record_in_bfloat16_ranks_tokens_as_float32() -> None:
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
    for full, low in zip(*ranks, strict=True):
        assert torch.corrcoef(torch.stack([full, low]))[0, 1] > 0.98
    assert half.dtype == torch.float32


def test_record_under_autocast(batch: Tensor) -> None:
    model = gradtoken.wrap(tiny_vit().float())
    exact = gradtoken.explain(model, batch, [1, 2]).tokens
    with torch.autocast("cpu", torch.bfloat16):
        half = gradtoken.explain(model, batch, [1, 2]).tokens
    assert torch.corrcoef(torch.stack([exact.flatten(), half.flatten()]))[0, 1] > 0.98


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_record_on_gpu_equals_cpu(batch: Tensor) -> None:
    module = tiny_vit().float()
    expected = gradtoken.explain(gradtoken.wrap(module), batch, [1, 2]).tokens
    on_gpu = gradtoken.explain(gradtoken.wrap(module.cuda()), batch, [1, 2]).tokens
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), expected, rtol=1e-3, atol=1e-5)
