"""Attributions on pixels, pooled to tokens, against plain autograd and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.images.fills import filled
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.record import record

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


@pytest.mark.parametrize("noise", [0, 0.2])
def test_gradient_shap(model: Model, batch: Tensor, noise: float) -> None:
    """More samples than run at once: each chunk draws noise, baselines and points in turn."""

    def by_hand(image: Tensor, label: int) -> Tensor:
        torch.manual_seed(5)
        rng = np.random.RandomState(5)
        fills = ("black", "grey", "mean", "blur")
        about = model.preprocess
        baselines = [filled(image[None], fill, about.mean, about.std)[0] for fill in fills]
        total = torch.zeros_like(image)
        for count in (16, 4):
            noisy = image + torch.normal(0, torch.full((count, 3, 64, 64), float(noise)))
            chosen = rng.choice(4, count)
            for one, c, point in zip(noisy, chosen, rng.uniform(0, 1, count), strict=True):
                start = baselines[c]
                total += (one - start) * gradient(model, start + point * (one - start), label)
        return by_token(total / 20)

    with torch.random.fork_rng():
        maps = found(model, batch[:1], "gradient-shap", samples=20, noise=noise, seed=5)
        assert_each(model, batch[:1], maps, by_hand)


def test_occlusion(model: Model, batch: Tensor) -> None:
    logits, maps = model(batch), found(model, batch, "occlusion")
    for b, image in enumerate(batch):
        for token in (0, 13, 63):
            row, column = divmod(token, 8)
            covered = image.clone()
            covered[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
            expected = (logits[b] - model(covered[None])[0])[CLASSES]
            torch.testing.assert_close(maps[b, :, token], expected)


def test_rise(model: Model, batch: Tensor) -> None:
    method = make_method("rise", masks=70, cells=3, keep=0.4, seed=2)
    chunks = list(method.drawn((64, 64)))
    masks = torch.cat(chunks).double()
    assert [len(chunk) for chunk in chunks] == [64, 6]
    assert masks.shape == (70, 64, 64)
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1
    assert torch.equal(masks, torch.cat(list(method.drawn((64, 64)))).double())

    def by_hand(image: Tensor, label: int) -> Tensor:
        total = sum(model((image * m)[None]).softmax(-1)[0, label] * m for m in masks)
        return by_token(total / (70 * 0.4), "mean")

    trace = record(model, batch)
    maps = method(trace, resolve(CLASSES, trace.logits, model.labels))
    assert_each(model, batch, maps, by_hand)


def test_rise_keeps_its_share_of_the_picture() -> None:
    masks = torch.cat(list(make_method("rise", masks=400, keep=0.3).drawn((64, 64))))
    assert abs(float(masks.mean()) - 0.3) < 0.03


def test_rise_runs_the_masks_once_for_all_targets(model: Model, batch: Tensor) -> None:
    seen = []
    trace = record(model, batch)
    handle = model.module.patch_embed.register_forward_hook(lambda _, a, out: seen.append(len(out)))
    method = make_method("rise", masks=10)
    many = method(trace, resolve(list(range(10)), trace.logits, model.labels))
    handle.remove()
    assert seen == [10, 10]
    one = method(trace, resolve([4], trace.logits, model.labels))
    torch.testing.assert_close(many[:, 4:5], one)


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


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("rise", {"masks": 0}, "rise's masks is 0; it must be a whole number from 1 up"),
        ("rise", {"keep": 1.5}, "rise's keep is 1.5; it must be above 0 and up to 1"),
        ("smoothgrad", {"noise": 0}, "smoothgrad's noise is 0; it must be above 0"),
        ("occlusion", {"window": 2.5}, "occlusion's window is 2.5; it must be a whole number"),
        ("integrated-gradients", {"steps": -1}, "integrated-gradients's steps is -1"),
        ("vit-cx", {"noise": -0.1}, "vit-cx's noise is -0.1; it must be a number from 0 up"),
        ("vit-cx", {"noise": float("inf")}, "vit-cx's noise is inf; it must be a number from 0"),
        ("vit-cx", {"distance": 0}, "vit-cx's distance is 0; it must be above 0 and up to 1"),
        ("gradient-shap", {"noise": "a"}, "gradient-shap's noise is 'a'; it must be a number from"),
        ("gradient-shap", {"samples": True}, "gradient-shap's samples is True; it must be a whole"),
        ("integrated-gradients", {"baseline": "red"}, "baseline is 'red'; it can be 'black', 'gr"),
        ("occlusion", {"fill": None}, "occlusion's fill is None; it can be 'black', 'grey'"),
        ("smoothgrad", {"seed": -1}, "smoothgrad's seed is -1; it must be a whole number from 0"),
        ("gradient-shap", {"seed": 1 << 32}, "seed is 4294967296; it must be below 2 to the power"),
        ("rise", {"seed": "a"}, "rise's seed is 'a'; it must be a whole number from 0 up"),
        ("vit-cx", {"seed": 0.5}, "vit-cx's seed is 0.5; it must be a whole number from 0 up"),
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
        torch.testing.assert_close(maps[0, :, token], expected)
    with pytest.raises(MethodError, match="so some tokens would never be covered"):
        make_method("occlusion", window=2, stride=3)
