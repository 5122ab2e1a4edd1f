"""The random map: uniform, and its own for each image, target and seed."""

from __future__ import annotations

import torch
from torch import Tensor

import gradtoken
from gradtoken.models import Model


def maps_of(model: Model, batch: Tensor, **options: object) -> Tensor:
    return gradtoken.explain(model, batch, list(range(8)), method="random", **options).tokens


def test_random_map_is_uniform(model: Model, batch: Tensor) -> None:
    maps = maps_of(model, batch).flatten()
    assert len(maps) == 2 * 8 * 64
    assert float(maps.min()) >= 0
    assert float(maps.max()) < 1
    tenths = torch.histc(maps, 10, 0, 1) / len(maps)
    assert float((tenths - 0.1).abs().max()) < 0.03


def test_random_map_differs_by_image_target_and_seed(model: Model, batch: Tensor) -> None:
    maps = maps_of(model, batch)
    rows = torch.cat([maps.flatten(0, 1), maps_of(model, batch, seed=1).flatten(0, 1)]).flatten(1)
    correlations = torch.corrcoef(rows) - torch.eye(len(rows))
    assert float(correlations.abs().max()) < 0.6


def test_random_map_of_an_image_does_not_depend_on_the_batch(model: Model, batch: Tensor) -> None:
    maps = maps_of(model, batch)
    assert torch.equal(maps_of(model, batch[1:]), maps[1:])
    assert torch.equal(maps_of(model, batch.flip(0)), maps.flip(0))
