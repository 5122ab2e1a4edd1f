"""ViT-ReciproCAM against its equation written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.record import record
from tests.attribution.compare import assert_equals
from tests.conftest import images_for, inputs, tiny_vit
from tests.models.zoo import ZOO, seeded
from tests.oracle import Written

GAUSSIAN = {0: 1 / 4, 1: 1 / 8, 2: 1 / 16}
"""The weight of a token by its distance in steps of the grid: itself, beside, at a corner."""


def by_hand(written: Written, label: int, block: int, *, gaussian: bool) -> Tensor:
    module = written.module
    blocks, _ = written.forward()
    entering, normed = blocks[block].entering, blocks[block].normed
    rows, columns = (side // 8 for side in written.image.shape[1:])
    prefix = len(entering) - rows * columns
    scores = [torch.zeros(()).double()] * prefix
    for row in range(rows):
        for column in range(columns):
            weights = torch.zeros(rows, columns).double()
            for i in range(rows):
                for j in range(columns):
                    down, across = abs(i - row), abs(j - column)
                    if max(down, across) <= (1 if gaussian else 0):
                        weights[i, j] = GAUSSIAN[down + across] if gaussian else 1
            mask = torch.cat([torch.ones(prefix).double(), weights.flatten()])[:, None]
            tokens = through(written, module.blocks[block], entering * mask, normed * mask)
            for later in module.blocks[block + 1 :]:
                tokens = through(written, later, tokens, later.norm1(tokens))
            scores.append(written.logits(tokens)[label])
    spatial = torch.stack(scores[prefix:])
    return torch.cat([torch.zeros(prefix).double(), spatial - spatial.min()])


def through(written: Written, block: torch.nn.Module, tokens: Tensor, normed: Tensor) -> Tensor:
    q, k, v = written.heads(block, normed)
    attention = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
    return written.after(block, tokens, attention @ v)


@pytest.mark.parametrize(("block", "gaussian"), [(-1, True), (-1, False), (1, True)])
def test_recipro_cam_equals_equation(model: Model, block: int, gaussian: bool) -> None:
    assert_equals(
        model,
        "recipro-cam",
        lambda written, label: by_hand(written, label, block % 4, gaussian=gaussian),
        block=block,
        gaussian=gaussian,
    )


def test_recipro_cam_of_every_layout(variant: Model) -> None:
    assert_equals(
        variant, "recipro-cam", lambda written, label: by_hand(written, label, 3, gaussian=True)
    )


def test_recipro_cam_needs_no_gradient_and_runs_once_for_all_targets(model: Model) -> None:
    images = inputs(model)
    trace = record(model, images)
    runs = []
    handle = model.module.patch_embed.register_forward_hook(lambda *_: runs.append(1))
    with torch.inference_mode():
        maps = make_method("recipro-cam")(
            trace, resolve(list(range(10)), trace.logits, model.labels)
        )
    handle.remove()
    assert maps.shape == (2, 10, 64)
    assert not maps.requires_grad
    assert len(runs) == 1 + len(images)


def test_recipro_cam_where_the_head_averages() -> None:
    """With a mean of tokens as the readout, the tokens outside of the neighbourhood are zero."""
    model = gradtoken.wrap(tiny_vit(global_pool="avg", class_token=False, fc_norm=True))
    image = inputs(model)[:1]
    actual = gradtoken.explain(model, image, 3, method="recipro-cam", gaussian=False).tokens
    module, block = model.module, model.module.blocks[-1]
    tokens = module.norm_pre(module._pos_embed(module.patch_embed(image)))
    for earlier in module.blocks[:-1]:
        tokens = earlier(tokens)
    scores = []
    for patch in range(64):
        mask = torch.zeros(64, 1).double()
        mask[patch] = 1
        middle = tokens * mask + block.attn(block.norm1(tokens) * mask)
        leaving = middle + block.mlp(block.norm2(middle))
        scores.append(module.forward_head(module.norm(leaving))[0, 3].detach())
    expected = torch.stack(scores) - min(scores)
    torch.testing.assert_close(actual[0, 0].flatten(), expected.float())


def test_recipro_cam_of_prompts() -> None:
    model = gradtoken.wrap(seeded(ZOO["open_clip ViT"].build))
    images = images_for((64, 64))
    prompts = gradtoken.text("a cat", "a dog")
    explanation = gradtoken.explain(model, images, prompts, method="recipro-cam")
    assert explanation.tokens.shape == (2, 2, 4, 4)
    assert float(explanation.tokens.max()) <= 2
    assert float(explanation.tokens.min()) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"block": 4}, r"recipro-cam's block is 4, but VisionTransformer has 4 blocks"),
        ({"block": "last"}, r"recipro-cam's block is 'last'; it must be a block's index"),
        ({"gaussian": 3}, r"recipro-cam's gaussian is 3; it must be True or False"),
    ],
)
def test_recipro_cam_rejects_options(model: Model, options: dict, words: str) -> None:
    with pytest.raises(MethodError, match=words):
        gradtoken.explain(model, inputs(model), 3, method="recipro-cam", **options)
