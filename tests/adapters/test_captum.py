"""Methods behind captum's call, beside captum itself."""

from __future__ import annotations

import pytest
import torch
from captum.attr import InputXGradient, NoiseTunnel, Occlusion, Saliency
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor
from torch.nn import functional as F

import gradtoken
from gradtoken.adapters.captum import Attribution
from gradtoken.errors import ImageError, ModelError, TargetError
from gradtoken.images.patch_grid import to_pixels
from gradtoken.models import Model


def test_attribute_channels_sum_to_map(model: Model, batch: Tensor) -> None:
    attributions = Attribution(model, "gae").attribute(batch, target=torch.tensor([3, 7]))
    tokens = gradtoken.explain(model, batch, [[3], [7]], method="gae").tokens[:, 0]
    assert attributions.shape == batch.shape
    assert attributions.dtype == batch.dtype
    torch.testing.assert_close(attributions.sum(1).float(), to_pixels(tokens, (64, 64)))


def test_attribute_target_forms(model: Model, batch: Tensor) -> None:
    live = Attribution(model.module, preset="faithful")
    expected = live.attribute(batch, target=3)
    assert torch.equal(expected, live.attribute(batch, target=[3, 3]))
    assert torch.equal(expected, live.attribute(batch, target=torch.tensor([3, 3])))
    predicted = [int(c) for c in model(batch).argmax(1)]
    assert torch.equal(live.attribute(batch), live.attribute(batch, target=predicted))
    with pytest.raises(TargetError, match="3 targets were given for 2 inputs"):
        live.attribute(batch, target=[1, 2, 3])
    with pytest.raises(TargetError, match="take no n_steps; give options when making"):
        live.attribute(batch, target=1, n_steps=4)
    live.attribute(batch, target=1, additional_forward_args=None)
    for unknown in ("additional_forward_args", "return_convergence_delta", "baselines"):
        with pytest.raises(TargetError, match=f"take no {unknown}"):
            live.attribute(batch, target=1, **{unknown: True})


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ((3, 7), r"\(3, 7\) is an index of 2 dimensions"),
        ([(3, 1), (7, 1)], "is an index of 2 dimensions"),
        (torch.tensor([[3, 7]]), r"shape \(1, 2\) is no class id for each of 2"),
        (torch.zeros(2, 10), r"shape \(2, 10\) is no class id"),
        (torch.tensor([3.5, 7.2]), "3.5 is no class id"),
        (torch.tensor([True, False]), "True is no class id"),
        (True, "True is no class id"),
        (1.5, "1.5 is no class id"),
        ("dog", "'dog' is no class id"),
        ([3], None),
        (-1, "class id -1 is out of range"),
    ],
)
def test_attribute_rejects_invalid_targets(
    model: Model, batch: Tensor, target: object, words: str | None
) -> None:
    attribution = Attribution(model, "gae")
    if words is None:
        attribution.attribute(batch, target=target)
        return
    with pytest.raises(TargetError, match=words):
        attribution.attribute(batch, target=target)


def test_attribute_rejects_invalid_inputs(model: Model, batch: Tensor) -> None:
    attribution = Attribution(model, "gae")
    for inputs, words in [
        ((batch, batch), "tuple of 2"),
        ((), "tuple of 0"),
        (batch[0], r"\(B, C, H, W\), it is \(3, 64, 64\)"),
        ([batch], "it is list"),
    ]:
        with pytest.raises(ImageError, match=words):
            attribution.attribute(inputs, target=1)


def noise(nt_samples: int, shape: torch.Size) -> Tensor:
    """What NoiseTunnel adds to a batch, drawn as it draws it."""
    size = (shape[0] * nt_samples, *shape[1:])
    return torch.normal(0, torch.tensor(0.2).repeat(size)).view(shape[0], nt_samples, *shape[1:])


@pytest.mark.parametrize(
    "target",
    [3, torch.tensor(3), torch.tensor([3]), torch.tensor([3, 7]), [3, 7], (3,), [(3,), (7,)]],
)
def test_attribute_targets_equal_captum(model: Model, batch: Tensor, target: object) -> None:
    theirs = InputXGradient(model.module).attribute(batch, target=target).detach()
    tokens = 64 * F.avg_pool2d(theirs.sum(1), 8)
    attributions = Attribution(model, "input-x-gradient").attribute(batch, target=target)
    torch.testing.assert_close(
        attributions.sum(1),
        to_pixels(tokens, (64, 64)),
        rtol=1e-4,
        atol=1e-6 * float(tokens.abs().max()),
    )


def test_attribute_returns_tuple_for_tuple(model: Model, batch: Tensor) -> None:
    (theirs,) = Saliency(model.module).attribute((batch,), target=1)
    attributions = Attribution(model, "gae").attribute((batch,), target=1)
    assert isinstance(attributions, tuple)
    assert len(attributions) == 1
    assert attributions[0].shape == theirs.shape
    assert torch.equal(attributions[0], Attribution(model, "gae").attribute(batch, target=1))


@pytest.mark.parametrize("as_tuple", [False, True])
@pytest.mark.parametrize("target", [3, [3, 7], torch.tensor([3, 7])])
def test_noise_tunnel_averages_over_its_noise(
    model: Model, batch: Tensor, target: object, as_tuple: bool
) -> None:
    ours = Attribution(model, "gae")
    for kind in (ours, Saliency(model.module)):
        torch.manual_seed(0)
        attributions = NoiseTunnel(kind).attribute(
            (batch,) if as_tuple else batch, nt_samples=3, stdevs=0.2, target=target
        )
        assert isinstance(attributions, tuple) == as_tuple
        assert (attributions[0] if as_tuple else attributions).shape == batch.shape
    torch.manual_seed(0)
    attributions = NoiseTunnel(ours).attribute(batch, nt_samples=3, stdevs=0.2, target=target)
    torch.manual_seed(0)
    noisy = batch[:, None] + noise(3, batch.shape)
    by_hand = torch.stack([ours.attribute(noisy[:, i], target=target) for i in range(3)]).mean(0)
    torch.testing.assert_close(attributions, by_hand)


def test_noise_tunnel_in_parts_and_squared(model: Model, batch: Tensor) -> None:
    ours = Attribution(model, "gae")
    torch.manual_seed(0)
    attributions = NoiseTunnel(ours).attribute(
        batch, nt_type="smoothgrad_sq", nt_samples=3, nt_samples_batch_size=2, target=[3, 7]
    )
    assert bool((attributions >= 0).all())
    assert attributions.shape == batch.shape


def test_sensitivity_max_accepts_attribution(model: Model, batch: Tensor) -> None:
    torch.manual_seed(0)
    values = sensitivity_max(
        Attribution(model, "gae").attribute,
        batch,
        perturb_radius=0.02,
        n_perturb_samples=2,
        target=1,
    )
    assert values.shape == (2,)
    assert bool((values > 0).all())


def test_attribution_activation_of_module(model: Model, batch: Tensor) -> None:
    options = {"masks": 6, "cells": 3}
    attributions = Attribution(model.module, "rise", activation="sigmoid", **options).attribute(
        batch, 3
    )
    other = gradtoken.wrap(model.module, activation="sigmoid")
    tokens = gradtoken.explain(other, batch, 3, method="rise", **options).tokens[:, 0]
    torch.testing.assert_close(attributions.sum(1).float(), to_pixels(tokens, (64, 64)))
    with pytest.raises(ModelError, match="a Model has its activation already"):
        Attribution(model, activation="sigmoid")


def test_infidelity_prefers_attribution_to_noise(model: Model, batch: Tensor) -> None:
    """Parts of patches are taken away, of which input x gradient says the effect to first order."""

    def perturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        cells = 0.01 * torch.rand(len(inputs), 1, 4, 4, generator=generator).double()
        taken = torch.nn.functional.interpolate(cells, inputs.shape[-2:]).expand_as(inputs)
        return taken, inputs * (1 - taken)

    def score(attributions: Tensor) -> float:
        values = infidelity(
            model.module,
            perturbed,
            batch,
            attributions,
            target=3,
            n_perturb_samples=64,
            normalize=True,
        )
        return float(values.mean())

    maps = Attribution(model, "input-x-gradient").attribute(batch, target=3)
    noise = torch.randn(maps.shape, generator=torch.Generator().manual_seed(1)).double()
    assert score(maps) < 0.1 * score(noise)


def test_occlusion_equals_captum(model: Model, batch: Tensor) -> None:
    window = (3, 8, 8)
    theirs = Occlusion(lambda x: model(x)).attribute(
        batch, window, strides=window, target=3, baselines=0
    )
    ours = gradtoken.explain(model, batch, 3, method="occlusion").tokens[:, 0]
    torch.testing.assert_close(to_pixels(ours, (64, 64), mode="nearest"), theirs[:, 0].float())
