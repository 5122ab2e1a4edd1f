"""The option `libra`: each method by LibraGrad's gradients against its equation with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method, methods
from gradtoken.errors import MethodError
from gradtoken.models import Model
from gradtoken.targets import resolve, text
from gradtoken.trace.gradients import readouts
from gradtoken.trace.record import record
from tests.attribution.attention import (
    test_agcam,
    test_attcat,
    test_daam,
    test_gae,
    test_gmar,
    test_grad_cam,
    test_grad_eclip,
    test_grad_rollout,
    test_grad_sam,
    test_tokentm,
)
from tests.attribution.compare import assert_equals
from tests.attribution.libra_by_hand import LibraWritten
from tests.conftest import images_for, inputs, tiny_vit
from tests.models.zoo import ZOO, seeded
from tests.oracle import Written
from tests.snapshot import Snapshot

BY_HAND: dict[str, Callable[[Written, int], Tensor]] = {
    "agcam": test_agcam.by_hand,
    "attcat": lambda written, label: test_attcat.by_hand(written, label, True),
    "daam": test_daam.by_hand,
    "gae": test_gae.by_hand,
    "gmar": test_gmar.by_hand,
    "grad-cam": test_grad_cam.on_tokens,
    "grad-eclip": test_grad_eclip.by_hand,
    "grad-rollout": lambda written, label: test_grad_rollout.by_hand(written, label, 0.9),
    "grad-sam": test_grad_sam.by_hand,
    "tokentm": test_tokentm.by_hand,
}
GRADIENT = [
    *BY_HAND,
    *("beyond-intuition", "cdam", "fullgrad-plus", "gradtoken", "iia", "legrad", "tam"),
    *("saliency", "input-x-gradient", "integrated-gradients", "smoothgrad", "gradient-shap"),
]
NONE = (
    "recipro-cam",
    "clip-surgery",
    "raw-attention",
    "rollout",
    "rise",
    "occlusion",
    "vit-cx",
    "random",
)
RELEVANCE = ("attnlrp", "partial-lrp", "transformer-attribution")


@pytest.mark.parametrize("method", BY_HAND)
def test_method_with_libra_equals_equation(method: str, variant: Model) -> None:
    assert_equals(variant, method, BY_HAND[method], oracle=LibraWritten, libra=True)


def test_input_x_gradient_with_libra_equals_equation(model: Model) -> None:
    image = images_for((64, 64), 1)
    written = LibraWritten(model.module, image[0].requires_grad_())
    (grad,) = torch.autograd.grad(written.forward()[1][3], written.image)
    expected = torch.nn.functional.avg_pool2d((written.image * grad).sum(0)[None], 8) * 64
    ours = gradtoken.explain(
        model, image.detach(), 3, method="input-x-gradient", libra=True
    ).tokens[0]
    torch.testing.assert_close(ours, expected.detach().float())


def test_readouts_with_libra_equal_plain_gradient_of_detached_model(model: Model) -> None:
    """What GradToken needs: the gradient by what each head writes into the class token."""
    images = inputs(model)
    trace = record(model, images)
    targets = resolve([3], trace.logits, model.labels)
    found = readouts(trace, targets, gradient="full", libra=True)
    blocks, logits = LibraWritten(model.module, images[0]).forward()
    grads = torch.autograd.grad(logits[3], [block.output for block in blocks])
    for block, grad in zip(found.blocks, grads, strict=True):
        torch.testing.assert_close(block[0].gradient[0, :, 0, 0], grad[:, 0])
    with pytest.raises(MethodError, match="libra=True needs a backward pass through blocks"):
        readouts(trace, targets, gradient="stream", libra=True)


@pytest.mark.parametrize("method", GRADIENT)
def test_methods_with_libra_differ_and_leave_model_unchanged(method: str, batch: Tensor) -> None:
    module = tiny_vit().train()
    module.blocks[0].requires_grad_(False)
    model, before = gradtoken.wrap(module), Snapshot(module)
    trial = methods()[method].trial
    both = [
        gradtoken.explain(model, batch, [3, 7], method=method, libra=libra, **trial).tokens
        for libra in (True, False)
    ]
    before.check(module)
    assert float((both[0] - both[1]).abs().max()) > 1e-2 * float(both[1].abs().max())


def test_all_other_methods_reject_libra_with_a_reason() -> None:
    takes = {name for name, kind in methods().items() if "libra" in [f.name for f in fields(kind)]}
    assert takes == set(GRADIENT)
    for names, words in ((NONE, "uses no gradient"), (RELEVANCE, "propagates relevance by rules")):
        for name in names:
            with pytest.raises(MethodError, match=f"{name} {words}.*; use it without libra"):
                make_method(name, libra=True)
    with pytest.raises(MethodError, match="gae's libra is 'yes'; it can be True or False"):
        make_method("gae", libra="yes")


def test_libra_rejects_operation_without_rule() -> None:
    module = tiny_vit()
    module.blocks[1].mlp.act = torch.nn.Tanh()
    model = gradtoken.wrap(module)
    for method in ("gae", "daam", "saliency", "fullgrad-plus"):
        with pytest.raises(MethodError, match=f"{method} with libra=True has no rule for tanh"):
            gradtoken.explain(model, images_for((64, 64)), 3, method=method, libra=True)


def test_libra_rejects_model_that_ends_in_a_softmax() -> None:
    module = tiny_vit()
    module.head = torch.nn.Sequential(module.head, torch.nn.Softmax(-1))
    model = gradtoken.wrap(module, activation="none")
    with pytest.raises(MethodError, match=r"gae with libra=True gets no gradient: .*\(a softmax"):
        gradtoken.explain(model, images_for((64, 64)), 3, method="gae", libra=True)


def test_libra_is_complete_for_text_prompts() -> None:
    """The embedding's length, by which the score divides, is a constant too."""
    from open_clip import get_tokenizer

    module = seeded(ZOO["open_clip ViT"].build)
    for name, parameter in module.visual.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    model = gradtoken.wrap(module, tokenizer=get_tokenizer("ViT-B-32"))
    trace = record(model, images_for(ZOO["open_clip ViT"].size))
    targets = resolve(text("a cat", "a dog"), trace.logits, model.labels, prompts=model.read_text)
    scores = targets.scores(trace.logits[:, None].expand(-1, 2, -1))
    sums = make_method("fullgrad-plus").by_block(trace, targets).sum(-1)
    torch.testing.assert_close(sums, scores.expand_as(sums))
