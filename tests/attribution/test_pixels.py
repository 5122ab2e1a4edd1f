"""Attributions on pixels, pooled to tokens, against plain autograd and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.metrics.fills import filled
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace import record
from tests.models.zoo import ZOO, seeded
from tests.test_trace import Snapshot

CLASSES = [3, 7]
HALF = (0.5, 0.5, 0.5)


def found(model: Model, images: Tensor, method: str, **options: object) -> Tensor:
    trace = record(model, images)
    return make_method(method, **options)(trace, resolve(CLASSES, trace.logits, model.labels))


def gradient(model: Model, image: Tensor, label: int) -> Tensor:
    image = image.clone().requires_grad_()
    return torch.autograd.grad(model.module(image[None])[0, label], image)[0]


def by_token(pixels: Tensor, how: str = "sum") -> Tensor:
    """(…, 64, 64) pooled to 8 x 8 tokens of 8 x 8 pixels, one at a time."""
    tokens = [
        pixels[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        for row in range(8)
        for column in range(8)
    ]
    return torch.stack([t.sum() if how == "sum" else t.mean() for t in tokens])


def assert_each(model: Model, images: Tensor, maps: Tensor, by_hand) -> None:
    for b, image in enumerate(images):
        for k, label in enumerate(CLASSES):
            expected = by_hand(image, label)
            scale = float(expected.abs().max())
            torch.testing.assert_close(maps[b, k], expected, rtol=1e-6, atol=1e-8 * scale)


def test_saliency(model: Model, batch: Tensor) -> None:
    def by_hand(image: Tensor, label: int) -> Tensor:
        return by_token(gradient(model, image, label).abs().amax(0), "mean")

    assert_each(model, batch, found(model, batch, "saliency"), by_hand)


def test_input_x_gradient(model: Model, batch: Tensor) -> None:
    def by_hand(image: Tensor, label: int) -> Tensor:
        return by_token(image * gradient(model, image, label))

    assert_each(model, batch, found(model, batch, "input-x-gradient"), by_hand)


def test_integrated_gradients(model: Model, batch: Tensor) -> None:
    points, weights = np.polynomial.legendre.leggauss(6)

    def by_hand(image: Tensor, label: int) -> Tensor:
        start = filled(image[None], "mean", HALF, HALF)[0]
        total = sum(
            w / 2 * gradient(model, start + (p + 1) / 2 * (image - start), label)
            for p, w in zip(points, weights, strict=True)
        )
        return by_token((image - start) * total)

    maps = found(model, batch, "integrated-gradients", steps=6, baseline="mean")
    assert_each(model, batch, maps, by_hand)


def test_integrated_gradients_are_complete(model: Model, batch: Tensor) -> None:
    maps = found(model, batch, "integrated-gradients", steps=200, baseline="grey")
    change = (model(batch) - model(torch.zeros_like(batch)))[:, CLASSES]
    torch.testing.assert_close(maps.sum(-1), change, rtol=1e-2, atol=1e-3)


def test_smoothgrad_is_the_mean_saliency_of_noisy_pictures(model: Model, batch: Tensor) -> None:
    def by_hand(image: Tensor, label: int) -> Tensor:
        torch.manual_seed(5)
        spread = float(image.max() - image.min()) * 0.1
        noisy = image + torch.normal(0, torch.full((4, 3, 64, 64), spread))
        total = torch.stack([gradient(model, one, label).abs() for one in noisy]).mean(0)
        return by_token(total.amax(0), "mean")

    with torch.random.fork_rng():
        maps = found(model, batch, "smoothgrad", samples=4, noise=0.1, seed=5)
        assert_each(model, batch, maps, by_hand)


def test_gradient_shap_lies_near_integrated_gradients(model: Model, batch: Tensor) -> None:
    """Its expectation is that of integrated gradients over its baselines."""
    exact = torch.stack(
        [
            found(model, batch, "integrated-gradients", steps=40, baseline=fill)
            for fill in ("black", "grey", "mean", "blur")
        ]
    ).mean(0)
    maps = found(model, batch, "gradient-shap", samples=300, noise=0.0)
    for one, other in zip(maps.flatten(0, 1), exact.flatten(0, 1), strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.97


def test_occlusion(model: Model, batch: Tensor) -> None:
    logits = model(batch)
    for b, image in enumerate(batch):
        for token in (0, 13, 63):
            row, column = divmod(token, 8)
            covered = image.clone()
            covered[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
            expected = (logits[b] - model(covered[None])[0])[CLASSES]
            maps = found(model, batch, "occlusion")
            torch.testing.assert_close(maps[b, :, token], expected.float())


def test_rise(model: Model, batch: Tensor) -> None:
    method = make_method("rise", masks=12, cells=3, keep=0.4, seed=2)
    masks = method.drawn((64, 64)).double()
    assert masks.shape == (12, 64, 64)
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1
    assert abs(float(make_method("rise", masks=400).drawn((64, 64)).mean()) - 0.5) < 0.03

    def by_hand(image: Tensor, label: int) -> Tensor:
        total = sum(model((image * m)[None]).softmax(-1)[0, label] * m for m in masks)
        return by_token(total / (12 * 0.4), "mean")

    trace = record(model, batch)
    maps = method(trace, resolve(CLASSES, trace.logits, model.labels))
    assert_each(model, batch, maps, by_hand)


def test_rise_of_a_target_that_is_no_class_takes_its_score(model: Model, batch: Tensor) -> None:
    plain = gradtoken.explain(model, batch, lambda z: z.softmax(-1)[3], method="rise", masks=8)
    named = gradtoken.explain(model, batch, 3, method="rise", masks=8)
    torch.testing.assert_close(plain.tokens, named.tokens)


def test_vit_cx(model: Model, batch: Tensor) -> None:
    from sklearn.cluster import AgglomerativeClustering

    method = make_method("vit-cx", distance=0.12, noise=0.2, seed=1)
    noise = 0.2 * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    trace = record(model, batch)
    maps = method(trace, resolve(CLASSES, trace.logits, model.labels))

    def by_hand(image: Tensor, label: int) -> Tensor:
        kept: list[Tensor] = []
        hook = model.module.blocks[-1].norm1.register_forward_hook(
            lambda _, args, out: kept.append(out[0, 1:])
        )
        plain = model(image[None]).softmax(-1)[0, label]
        hook.remove()
        scaled = torch.stack([(c - c.min()) / (c.max() - c.min()) for c in kept[0].T])
        groups = AgglomerativeClustering(
            None, metric="cosine", linkage="average", distance_threshold=0.12
        ).fit_predict(scaled.numpy())
        top, below = torch.zeros(64).double(), torch.zeros(64).double()
        shaken = model((image + noise)[None]).softmax(-1)[0, label]
        for group in sorted(set(groups)):
            mask = scaled[groups == group].mean(0)
            large = torch.nn.functional.interpolate(
                mask.view(1, 1, 8, 8), (64, 64), mode="bilinear"
            )[0]
            score = model((image * large + noise)[None]).softmax(-1)[0, label] - shaken + plain
            top, below = top + score * mask, below + mask
        assert 1 < len(set(groups)) < 48
        return top / below

    assert_each(model, batch, maps, by_hand)


CHEAP = {
    "saliency": {},
    "input-x-gradient": {},
    "integrated-gradients": {"steps": 2},
    "smoothgrad": {"samples": 2},
    "gradient-shap": {"samples": 2},
    "occlusion": {},
    "rise": {"masks": 6},
    "vit-cx": {"distance": 0.9},
}
KINDS = (
    "vit_tiny_patch16_224",
    "vit, not square",
    "swin_tiny_patch4_window7_224",
    "ViTForImageClassification",
    "open_clip ViT",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", CHEAP)
def test_families(kind: str, method: str) -> None:
    entry = ZOO[kind]
    model = gradtoken.wrap(seeded(entry.build))
    images = torch.randn(2, 3, *entry.size, generator=torch.Generator().manual_seed(3)).double()
    targets = [lambda z: z[1], lambda z: z[3]]
    if method == "vit-cx" and not model.anatomy.blocks:
        with pytest.raises(MethodError, match="vit-cx needs the attention between all tokens"):
            gradtoken.explain(model, images, targets, method=method)
        return
    before, state = Snapshot(model.module), np.random.get_state()[1].copy()  # noqa: NPY002
    options = CHEAP[method]
    maps = gradtoken.explain(model, images, targets, method=method, **options).tokens
    before.check(model.module)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert maps.shape == (2, 2, *entry.grid)
    assert not torch.allclose(maps[:, 0], maps[:, 1], rtol=1e-3, atol=0)
    alone = gradtoken.explain(model, images[1:], targets, method=method, **options).tokens
    torch.testing.assert_close(alone[0], maps[1], rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("rise", {"masks": 0}, "rise's masks is 0; it must be a whole number from 1 up"),
        ("rise", {"keep": 1.5}, "rise's keep is 1.5; it must be above 0 and up to 1"),
        ("smoothgrad", {"noise": 0}, "smoothgrad's noise is 0; it must be above 0"),
        ("occlusion", {"window": 2.5}, "occlusion's window is 2.5; it must be a whole number"),
        ("integrated-gradients", {"steps": -1}, "integrated-gradients's steps is -1"),
        ("vit-cx", {"noise": -0.1}, "vit-cx's noise is -0.1; it must be a number from 0 up"),
    ],
)
def test_options_out_of_range_are_refused(method: str, options: dict, words: str) -> None:
    with pytest.raises(MethodError, match=words):
        make_method(method, **options)


def test_captum_missing_is_named(model: Model, batch: Tensor, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(MethodError, match=r"saliency runs through captum.*gradtoken\[bench\]"):
        gradtoken.explain(model, batch, 3, method="saliency")


def test_occlusion_windows_and_strides(model: Model, batch: Tensor) -> None:
    maps = found(model, batch, "occlusion", window=4, stride=4)
    covered = batch[0].clone()
    covered[:, 32:, :32] = 0
    expected = (model(batch)[0] - model(covered[None])[0])[CLASSES]
    for token in (32, 35, 56, 59):
        torch.testing.assert_close(maps[0, :, token], expected.float())
    with pytest.raises(MethodError, match="so some tokens would never be covered"):
        make_method("occlusion", window=2, stride=3)
