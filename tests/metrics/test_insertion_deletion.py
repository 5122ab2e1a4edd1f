"""Insertion and deletion against a plain loop."""

from __future__ import annotations

import pytest
import torch

from gradtoken.errors import MethodError
from gradtoken.images.fills import filled
from gradtoken.metrics.insertion_deletion import area, deletion, insertion
from gradtoken.models import Model
from tests.conftest import images_for

NORMALISATION = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def test_insertion_and_deletion_equal_loop(model: Model) -> None:
    images = images_for((64, 64))
    maps = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(2)).double()
    classes = torch.tensor([4, 8])
    inserted = insertion(model, images, maps, classes, steps=8, **NORMALISATION)
    removed = deletion(model, images, maps, classes, steps=8, **NORMALISATION)
    blurred = filled(images, "blur", **NORMALISATION)
    for b in range(2):
        order = maps[b].flatten().argsort(descending=True)
        for step in range(9):
            inside = order[: 512 * step]
            more, less = blurred[b].clone().flatten(1), images[b].clone().flatten(1)
            more[:, inside] = images[b].flatten(1)[:, inside]
            less[:, inside] = 0
            for changed, curve in ((more, inserted), (less, removed)):
                expected = model(changed.unflatten(1, (64, 64))[None]).softmax(-1)[0, classes[b]]
                torch.testing.assert_close(curve[b, step], expected)
    torch.testing.assert_close(inserted[:, -1], removed[:, 0])


def test_area_is_trapezoid_rule() -> None:
    curve = torch.tensor([[1.0, 0.5, 0.0], [0.2, 0.2, 0.2]])
    torch.testing.assert_close(area(curve), torch.tensor([0.5, 0.2]))


@pytest.mark.parametrize("steps", [0, 4097])
def test_deletion_rejects_invalid_steps(model: Model, steps: int) -> None:
    images, maps = images_for((64, 64)), torch.zeros(2, 64, 64)
    with pytest.raises(MethodError, match=f"steps={steps} is not possible; use 1 to 4096"):
        deletion(model, images, maps, torch.tensor([4, 8]), steps=steps, **NORMALISATION)
