"""Measuring methods on the bundled scenes: which scenes count, and one record per object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from gradtoken.attribution import Method
from gradtoken.bench.seen import as_seen
from gradtoken.datasets import Scene, Scenes
from gradtoken.errors import ModelError
from gradtoken.explaining import explain, read_batch
from gradtoken.explanation.explanation import Explanation
from gradtoken.metrics.coupling import pairwise_correlation
from gradtoken.metrics.localization import Coverage, token_ap
from gradtoken.models.model import Model

FIGURES = ("pointing", "token_ap", "share", "energy", "coupling")


def recognised(
    model: Model, scenes: Scenes, limit: int, *, batch: int = 8
) -> Iterator[tuple[int, Scene]]:
    """The scenes among the first `limit` whose k objects are the model's k first classes."""
    for start in range(0, limit, batch):
        found = [(index, scenes[index]) for index in range(start, min(start + batch, limit))]
        logits = model(read_batch(model, [scene.image for _, scene in found])[1])
        for (index, scene), row in zip(found, logits, strict=True):
            if set(row.topk(len(scene.labels)).indices.tolist()) == set(scene.labels):
                yield index, scene


def measure(
    model: Model,
    methods: Mapping[str, Method],
    scenes: Scenes,
    count: int,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[dict[str, Any]], int]:
    """Every method's figures on the first `count` recognised scenes.

    Args:
        methods: methods by the name they get in the records.
        progress: called with the number of scenes done so far.

    Returns:
        A record per scene, object and method (scene, object, method and the `FIGURES`; coupling,
        which belongs to a scene, is repeated for its objects), and how many scenes were looked at.
        The figures of an object outside of the model's crop are NaN.
    """
    if tuple(model.labels) != scenes.classes:
        raise ModelError(
            f"{model.spec} was not trained on the bundled scenes (its classes are others); measure "
            "a model that names them, such as demo."
        )
    records: list[dict[str, Any]] = []
    seen = 0
    for done, (index, scene) in enumerate(recognised(model, scenes, 1 << 40), start=1):
        for name, method in methods.items():
            found = explain(model, scene.image, list(scene.labels), method=method)
            records += _records(index, scene, name, found)
        progress(done)
        if done == count:
            seen = index + 1
            break
    return records, seen


def column(records: list[dict[str, Any]], method: str, figure: str) -> np.ndarray[Any, Any]:
    """One figure of one method over all instances, in the order of the records."""
    return np.array([r[figure] for r in records if r["method"] == method], dtype=float)


def _records(index: int, scene: Scene, name: str, found: Explanation) -> list[dict[str, Any]]:
    height, width = found.tokens.shape[-2:]
    masks = [as_seen(mask, found.boxes[0], scene.image.size) for mask in scene.masks]
    coverage = Coverage.of_masks(torch.stack(masks), (height, width))
    figures = coverage.figures(found.tokens[0])
    maps = found.tokens[0].flatten(1).double().cpu()
    figures["token_ap"] = token_ap(maps, coverage.tokens)
    alike = float(pairwise_correlation(maps[None]).mean()) if len(maps) > 1 else torch.nan
    figures["coupling"] = torch.full((len(maps),), alike, dtype=torch.float64)
    return [
        {
            "scene": index,
            "object": label,
            "method": name,
            **{figure: float(figures[figure][k]) for figure in FIGURES},
        }
        for k, label in enumerate(scene.names)
    ]
