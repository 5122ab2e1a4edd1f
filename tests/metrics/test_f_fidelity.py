"""F-Fidelity against a plain loop over sizes, samples and pixels, and its corner cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.errors import MethodError
from gradtoken.metrics.f_fidelity import f_fidelity
from gradtoken.models import Model
from tests.conftest import images_for

CLASSES = torch.tensor([3, 7])


@pytest.fixture
def toy(model: Model) -> tuple[Model, Tensor, Tensor]:
    images = images_for((64, 64), 2)
    tokens = gradtoken.explain(model, images, [[int(c)] for c in CLASSES], method="cdam").tokens
    return model, images, torch.nn.functional.interpolate(tokens, (64, 64), mode="bilinear")[:, 0]


def by_hand(
    model: Model, image: Tensor, relevance: Tensor, label: int, size: float, *, inside: bool
) -> tuple[float, float]:
    """Drops of probability and of hits for one size, three samples, one pixel at a time."""
    drawn = torch.rand((3, 64, 64), generator=torch.Generator().manual_seed(2))
    order = np.argsort(-relevance.flatten().numpy(), kind="stable")
    chosen = order[: int(size * 4096)] if inside else order[int(size * 4096) :]
    chance = min(0.5, 0.1 / (size if inside else 1 - size))
    clean = model(image[None])[0]
    drops, lost = [], []
    for numbers in drawn:
        changed = image.clone()
        for place in chosen:
            if numbers[place // 64, place % 64] < chance:
                changed[:, place // 64, place % 64] = 0
        logits = model(changed[None])[0]
        drops.append(float(clean.softmax(-1)[label] - logits.softmax(-1)[label]))
        lost.append(float(clean.argmax() == label) - float(logits.argmax() == label))
    return float(np.mean(drops)), float(np.mean(lost))


def test_f_fidelity_equals_plain_loop(toy) -> None:
    model, images, maps = toy
    classes = CLASSES.clone()
    classes[0] = int(model(images)[0].argmax())
    result = f_fidelity(model, images, maps, classes, sizes=(0.1, 0.6), samples=3, seed=2)
    for b in range(2):
        for step, size in enumerate((0.1, 0.6)):
            inputs = (model, images[b], maps[b], int(classes[b]), size)
            plus, plus_label = by_hand(*inputs, inside=True)
            minus, minus_label = by_hand(*inputs, inside=False)
            assert abs(float(result.plus[b, step]) - plus) < 1e-6
            assert abs(float(result.minus[b, step]) - minus) < 1e-6
            assert abs(float(result.plus_label[b, step]) - plus_label) < 1e-6
            assert abs(float(result.minus_label[b, step]) - minus_label) < 1e-6
    assert result.sizes == (0.1, 0.6)


def test_no_more_is_removed_than_the_cap() -> None:
    seen = []

    def predict(images: Tensor) -> Tensor:
        seen.append((images == 0).double().mean(dim=(1, 2, 3)))
        return torch.zeros(len(images), 2)

    maps = torch.rand(1, 50, 50, generator=torch.Generator().manual_seed(1))
    f_fidelity(predict, torch.ones(1, 3, 50, 50), maps, torch.tensor([0]), samples=4)
    shares = torch.cat(seen)[1:].unflatten(0, (9, 2, 4)).mean(-1)
    assert shares.max() < 0.11
    assert float(shares[0, 0]) == pytest.approx(0.05, abs=0.01), "alpha of a tenth"
    assert float(shares[4, 1]) == pytest.approx(0.1, abs=0.01)


def test_f_fidelity_rejects_invalid_arguments(toy) -> None:
    model, images, maps = toy
    with pytest.raises(MethodError, match=r"sizes=\(0.5, 1.0\) is not possible"):
        f_fidelity(model, images, maps, CLASSES, sizes=(0.5, 1.0))
    for options in ({"samples": 0}, {"alpha": 0.0}, {"cap": 1.5}):
        with pytest.raises(MethodError, match="are not possible; use at least one"):
            f_fidelity(model, images, maps, CLASSES, **options)
    with pytest.raises(MethodError, match=r"maps of shape \(2, 32, 64\) do not fit images"):
        f_fidelity(model, images, maps[:, ::2], CLASSES)
    maps[0, 0, 0] = torch.nan
    with pytest.raises(MethodError, match="NaN or infinite relevance"):
        f_fidelity(model, images, maps, CLASSES)
