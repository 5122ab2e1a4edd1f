"""What an explanation costs, counted and not timed: floating-point operations, forwards, memory."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from benchmarks.cost.live import most_bytes
from benchmarks.cost.operations import count
from torch import Tensor, nn

import gradtoken
from gradtoken.batching import kept_bytes
from gradtoken.models import Model
from gradtoken.trace import backward, gradients
from gradtoken.trace.readout import Readouts
from gradtoken.trace.record import record

ONE_TARGET = 1.05
EVERY_TARGET = 8.0
"""Counted operations, as ratios to those of the forward alone. The rivals of 1000 classes take the
backward pass of one block's token, which is more of four blocks than of twelve."""


@pytest.fixture(scope="module")
def model() -> Model:
    """The shape of ViT-B/16 at 224, with 4 of its 12 blocks."""
    torch.manual_seed(0)
    module = timm.create_model("vit_base_patch16_224", depth=4)
    return gradtoken.wrap(module)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def ratio(model: Model, image: Tensor, targets: object, **options: object) -> float:
    spent = count(lambda: gradtoken.explain(model, image, targets, **options))
    return spent / count(lambda: model(image))


def test_explain_one_target_costs_little_more_than_forward(model: Model, image: Tensor) -> None:
    assert 1.0 < ratio(model, image, 3) < ONE_TARGET


def test_wrap_runs_blocks_once(model: Model) -> None:
    """All tokens go through each block once and once up to its attention, one or two alone a few
    times more."""
    fresh = copy.deepcopy(model.module)
    tokens, embedded = [], []
    fresh.blocks[2].register_forward_pre_hook(lambda _, args: tokens.append(args[0].shape[1]))
    fresh.patch_embed.register_forward_pre_hook(lambda *_: embedded.append(1))
    gradtoken.wrap(fresh)
    assert tokens.count(197) == 2
    assert len(tokens) <= 6
    assert max(n for n in tokens if n != 197) <= 2
    assert len(embedded) <= 4


def test_explain_default_costs_little_more_than_v01(model: Model, image: Tensor) -> None:
    assert ratio(model, image, 3) - ratio(model, image, 3, preset="v0.1") < 0.06


def test_explain_every_class_costs_few_forwards(model: Model, image: Tensor) -> None:
    assert ratio(model, image, "all") < EVERY_TARGET


def test_cost_limit_notices_extra_backward(
    model: Model, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ratio(model, image, 3, gradient="full") > ONE_TARGET
    plain = gradients.ClassGradients.readouts

    def twice(self: gradients.ClassGradients, seeds: Tensor) -> Readouts:
        backward.backward_through_model(self.trace, seeds)
        return plain(self, seeds)

    monkeypatch.setattr(gradients.ClassGradients, "readouts", twice)
    assert ratio(model, image, 3) > ONE_TARGET


@pytest.mark.parametrize("targets", [3, [1, 2, 3], "all"])
def test_explain_runs_model_once(model: Model, image: Tensor, targets: object) -> None:
    runs = []
    handle = model.module.register_forward_hook(lambda *_: runs.append(1))
    gradtoken.explain(model, image, targets)
    handle.remove()
    assert len(runs) == 1


def test_explain_runs_patches_once(model: Model, image: Tensor) -> None:
    """All tokens go through a block once; what else goes through it is the class token alone."""
    shapes = []
    block: nn.Module = model.module.blocks[2]
    handle = block.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    gradtoken.explain(model, image, "all")
    handle.remove()
    assert shapes == [(1, 197, 768), (1, 1, 768)]


def test_explain_memory_is_forward_and_context(model: Model, image: Tensor) -> None:
    """Keys and values of all blocks, and little else; queries for methods that look at them."""
    images = image.repeat(4, 1, 1, 1)
    forward = most_bytes(model.module, lambda: model(images))
    context = kept_bytes(record(model, images, queries=False))
    assert context == 4 * 4 * 2 * 197 * 768 * 4
    assert kept_bytes(record(model, images)) == 1.5 * context
    for options, share in (({}, 1.5), ({"spread": "attention"}, 2.3)):
        most = most_bytes(model.module, lambda o=options: gradtoken.explain(model, images, 3, **o))
        assert most < forward + share * context, most
    full = most_bytes(model.module, lambda: gradtoken.explain(model, images, 3, gradient="full"))
    assert full > forward + 2 * context


def test_explain_half_of_blocks_needs_half_of_context(model: Model, image: Tensor) -> None:
    images = image.repeat(4, 1, 1, 1)
    context = kept_bytes(record(model, images, queries=False))
    all_blocks, half = (
        most_bytes(model.module, lambda n=layers: gradtoken.explain(model, images, 3, layers=n))
        for layers in ("all", "half")
    )
    assert all_blocks - half > 0.4 * context
    assert ratio(model, image, 3, layers="half") < ratio(model, image, 3)


def test_explain_memory_is_constant_over_batches(model: Model, image: Tensor) -> None:
    def most(count: int) -> int:
        images = image.repeat(count, 1, 1, 1)
        return most_bytes(model.module, lambda: gradtoken.explain(model, images, 3, batch_size=4))

    assert most(12) - most(4) < 2 * 8 * image.numel() * image.element_size()
