"""Grad-ECLIP against its equation written out, with the model's heads and with one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from gradtoken.targets import text
from tests.attribution.compare import assert_equals
from tests.conftest import images_for, tiny_vit
from tests.models.zoo import ZOO, seeded
from tests.oracle import Written


def weighted(
    written: Written, gradient: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> Tensor:
    """(sum_c g_c lambda_i v_ic)+, token by token; lambda is scaled over the patches."""
    prefix = written.module.num_prefix_tokens
    alike = torch.stack([torch.cosine_similarity(query, one, dim=0) for one in key])
    low, high = alike[prefix:].min(), alike[prefix:].max()
    return torch.stack(
        [
            (torch.dot(gradient, one) * (near - low) / (high - low)).clamp_min(0)
            for one, near in zip(value, alike, strict=True)
        ]
    )


def joined(heads: Tensor) -> Tensor:
    return heads.transpose(0, 1).flatten(1)


def by_hand(written: Written, label: int) -> Tensor:
    blocks, logits = written.forward()
    last = blocks[-1]
    (grad,) = torch.autograd.grad(logits[label], last.output)
    q, k, v = (joined(part) for part in written.heads(written.module.blocks[-1], last.normed))
    return weighted(written, joined(grad)[0], q[0], k, v)


def with_one_head(
    written: Written, label: int, score: Callable[[Tensor, int], Tensor] = Tensor.__getitem__
) -> Tensor:
    """The published code: the last block again, its attention with a single head."""
    last, layer = written.forward()[0][-1], written.module.blocks[-1]
    q, k, v = (joined(part) for part in written.heads(layer, last.normed))
    output = ((q @ k.T / q.shape[1] ** 0.5).softmax(-1) @ v).detach().requires_grad_()
    middle = last.entering + layer.ls1(layer.attn.proj(output))
    logits = written.logits(written.through_mlp(layer, middle))
    (grad,) = torch.autograd.grad(score(logits, label), output)
    query, key = (layer.ls1(layer.attn.proj(part)) for part in (q, k))
    return weighted(written, grad[0], query[0], key, v)


def test_grad_eclip_equals_equation(variant: Model) -> None:
    assert_equals(variant, "grad-eclip", by_hand)


def test_grad_eclip_with_one_head_equals_published_code(variant: Model) -> None:
    assert_equals(variant, "grad-eclip", with_one_head, heads="one")


def test_grad_eclip_with_one_head_scores_the_changed_output(model: Model, batch: Tensor) -> None:
    def score(logits: Tensor, label: int) -> Tensor:
        return logits[label] ** 2 * logits[7]

    expected = with_one_head(Written(model.module, batch[0]), 3, score).detach()[1:]
    ours = gradtoken.explain(
        model, batch[:1], [lambda z: score(z, 3)], method="grad-eclip", heads="one"
    ).tokens.flatten()
    torch.testing.assert_close(ours, expected.float())


def test_grad_eclip_of_attention_pool_equals_equation() -> None:
    module = tiny_vit(global_pool="map", class_token=False)
    model, image = gradtoken.wrap(module), images_for((64, 64), 1)
    pool = module.attn_pool
    tokens = module.forward_features(image).detach()
    heads, width = pool.num_heads, pool.head_dim
    query = pool.q(pool.latent)[0, 0]
    key, value = (
        part[0].detach() for part in pool.kv(tokens).unflatten(-1, (2, heads * width)).unbind(-2)
    )
    scores = torch.einsum("hd,nhd->hn", query.view(heads, width), key.view(-1, heads, width))
    weights = (scores / width**0.5).softmax(-1)
    mixed = torch.einsum("hn,nhd->hd", weights, value.view(-1, heads, width))
    output = mixed.flatten().detach().requires_grad_()
    projected = pool.proj(output)
    after = projected + pool.mlp(pool.norm(projected))
    (grad,) = torch.autograd.grad(module.head(module.fc_norm(after))[3], output)
    expected = weighted(Written(module, image[0]), grad, query, key, value).detach()
    ours = gradtoken.explain(model, image, 3, method="grad-eclip").tokens.flatten()
    torch.testing.assert_close(ours, expected.float())


def test_grad_eclip_explains_text_prompts() -> None:
    """Of a model that compares images with text, y is the cosine with a prompt."""
    from open_clip import get_tokenizer

    module = seeded(ZOO["open_clip ViT"].build)
    model = gradtoken.wrap(module, tokenizer=get_tokenizer("ViT-B-32"))
    images = images_for(ZOO["open_clip ViT"].size)
    maps = gradtoken.explain(model, images, text("a cat", "a dog"), method="grad-eclip").tokens
    assert maps.shape == (2, 2, 4, 4)
    assert float((maps[:, 0] - maps[:, 1]).abs().max()) > 1e-3 * float(maps.max())


@pytest.mark.parametrize("heads", ["model", "one"])
def test_grad_eclip_rejects_average_of_tokens(heads: str) -> None:
    model = gradtoken.wrap(tiny_vit(global_pool="avg", class_token=False))
    with pytest.raises(MethodError, match=r"grad-eclip .*needs a class token .* as mean of patch"):
        gradtoken.explain(model, images_for((64, 64)), 3, method="grad-eclip", heads=heads)


def test_grad_eclip_with_one_head_rejects_position_bias_of_each_head() -> None:
    name = "beitv2_base_patch16_224, class token"
    model = gradtoken.wrap(seeded(ZOO[name].build))
    images = images_for(ZOO[name].size)
    with pytest.raises(MethodError, match='grad-eclip with heads="one" has one position bias'):
        gradtoken.explain(model, images, [lambda z: z[1]], method="grad-eclip", heads="one")


def test_grad_eclip_rejects_unknown_heads() -> None:
    with pytest.raises(MethodError, match="grad-eclip's heads is 'two'; it can be 'model' or"):
        make_method("grad-eclip", heads="two")
