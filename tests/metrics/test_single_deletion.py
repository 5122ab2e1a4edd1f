"""Single deletion against a plain loop over cells with scipy's Spearman, and its corner cases."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

import gradtoken
from gradtoken.errors import MethodError
from gradtoken.metrics.single_deletion import (
    cells_of,
    logit_drops,
    relevance_by_cell,
    single_deletion,
)
from gradtoken.models import Model
from tests.conftest import images_for

NORMALISATION = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
CLASSES = torch.tensor([3, 7, 1])


@pytest.fixture
def toy(model: Model) -> tuple[Model, Tensor, Tensor]:
    images = images_for((64, 64), 3)
    tokens = gradtoken.explain(model, images, [[int(c)] for c in CLASSES], method="cdam").tokens
    return model, images, torch.nn.functional.interpolate(tokens, (64, 64), mode="bilinear")[:, 0]


@pytest.mark.parametrize("side", [4, 2])
def test_single_deletion_equals_plain_loop(toy, side: int) -> None:
    model, images, maps = toy
    result = single_deletion(model, images, maps, CLASSES, side=side, **NORMALISATION)
    step = 64 // side
    for b in range(3):
        label, sums, falls = int(CLASSES[b]), [], []
        for row in range(side):
            for column in range(side):
                changed, total = images[b].clone(), 0.0
                for y in range(row * step, row * step + step):
                    for x in range(column * step, column * step + step):
                        total += float(maps[b, y, x])
                        changed[:, y, x] = 0
                sums.append(total)
                before, after = model(images[b : b + 1])[0], model(changed[None])[0]
                falls.append(float(before[label] - after[label]))
        assert abs(float(result[b]) - spearmanr(sums, falls).statistic) < 1e-6


def test_logit_drops_are_of_every_class(toy) -> None:
    model, images, _ = toy
    falls = logit_drops(model, images, fill="black", **NORMALISATION)
    assert falls.shape == (3, 16, 10)
    changed = images.clone()
    changed[:, :, 16:32, 48:] = -1
    torch.testing.assert_close(falls[:, 7], model(images) - model(changed))


def test_cells_cover_every_pixel_once() -> None:
    for height, width, side in ((64, 64, 4), (37, 53, 4), (5, 4, 4), (6, 9, 1)):
        cells = cells_of(height, width, side)
        assert cells.shape == (side * side, height, width)
        assert (cells.sum(0) == 1).all()
        sizes = cells.sum(dim=(1, 2))
        assert sizes.min() >= (height // side) * (width // side)
    assert cells_of(8, 8)[5].nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_relevance_by_cell_keeps_signs() -> None:
    maps = torch.zeros(1, 8, 8)
    maps[0, 0, 7], maps[0, 1, 6], maps[0, 7, 7] = 2.0, -3.0, 1.0
    sums = relevance_by_cell(maps)[0]
    assert (float(sums[3]), float(sums[15]), float(sums.sum())) == (-1.0, 1.0, 0.0)


def test_single_deletion_without_order_is_nan(toy) -> None:
    model, images, maps = toy
    maps[1] = 0.5
    result = single_deletion(model, images, maps, CLASSES, **NORMALISATION)
    assert result.isnan().tolist() == [False, True, False]
    constant = torch.ones(1, 10)
    result = single_deletion(
        lambda changed: constant.expand(len(changed), -1), images, maps, CLASSES, **NORMALISATION
    )
    assert result.isnan().all()


def test_single_deletion_rejects_invalid_arguments(toy) -> None:
    model, images, maps = toy
    with pytest.raises(MethodError, match="side=65 is not possible for images of 64x64 pixels"):
        single_deletion(model, images, maps, CLASSES, side=65, **NORMALISATION)
    with pytest.raises(MethodError, match=r"maps of shape \(2, 64, 64\) do not fit images"):
        single_deletion(model, images, maps[:2], CLASSES, **NORMALISATION)
    maps[0, 0, 0] = torch.inf
    with pytest.raises(MethodError, match="NaN or infinite relevance"):
        single_deletion(model, images, maps, CLASSES, **NORMALISATION)
