"""Segmentation metrics against plain loops over pixels, and their corner cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from gradtoken.errors import MethodError
from gradtoken.metrics.segmentation import average_precision, min_max, overlap

GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.randn(5, 9, 7, generator=GENERATOR).double()
MASKS = torch.rand(5, 9, 7, generator=GENERATOR) < 0.3
IGNORE = torch.rand(5, 9, 7, generator=GENERATOR) < 0.2


def published(ignore: torch.Tensor | None) -> tuple[float, float, float]:
    """Pixel accuracy and mean IoU over all pixels, and the mean of AP, one pixel at a time."""
    correct = labelled = 0
    both, either, aps = np.zeros(2), np.zeros(2), []
    for b in range(5):
        values = MAPS[b].numpy()
        values = (values - values.min()) / (values.max() - values.min())
        sides, scores = [], []
        for y in range(9):
            for x in range(7):
                if ignore is not None and ignore[b, y, x]:
                    continue
                truth, predicted = int(MASKS[b, y, x]), int(values[y, x] > values.mean())
                labelled += 1
                correct += truth == predicted
                for side in (0, 1):
                    both[side] += truth == side and predicted == side
                    either[side] += truth == side or predicted == side  # noqa: PLR1714
                sides += [1 - truth, truth]
                scores += [1 - values[y, x], values[y, x]]
        aps.append(average_precision_score(sides, scores))
    return correct / labelled, float((both / either).mean()), float(np.mean(aps))


def test_segmentation_metrics_equal_pixel_loop() -> None:
    for ignore in (None, IGNORE):
        result = overlap(MAPS, MASKS, ignore)
        ap = average_precision(MAPS, MASKS, ignore)
        expected = published(ignore)
        assert abs(float(result.pixel_accuracy()) - expected[0]) < 1e-6
        assert abs(float(result.mean_iou()) - expected[1]) < 1e-6
        assert abs(float(ap.mean()) - expected[2]) < 1e-6
        single = overlap(MAPS[2:3], MASKS[2:3], None if ignore is None else ignore[2:3])
        torch.testing.assert_close(result.pixel_accuracies()[2], single.pixel_accuracy())
        torch.testing.assert_close(result.mean_ious()[2], single.mean_iou())


def test_segmentation_of_perfect_and_constant_maps() -> None:
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, :2, :2] = True
    perfect = overlap(masks.double(), masks)
    assert float(perfect.pixel_accuracy()) == float(perfect.mean_iou()) == 1
    assert float(average_precision(masks.double(), masks)) == 1
    constant = torch.full((1, 4, 4), 3.0)
    assert not min_max(constant).any()
    assert float(overlap(constant, masks).pixel_accuracy()) == 12 / 16


def test_segmentation_without_pixels_is_nan() -> None:
    ignored = torch.ones(1, 3, 3, dtype=torch.bool)
    masks = torch.zeros(1, 3, 3, dtype=torch.bool)
    maps = torch.rand(1, 3, 3)
    assert overlap(maps, masks, ignored).pixel_accuracies().isnan().all()
    assert average_precision(maps, masks, ignored).isnan().all()
    result = overlap(torch.full((1, 3, 3), 1.0), masks)
    assert float(result.mean_ious()) == 1


def test_segmentation_rejects_non_finite_relevance() -> None:
    maps = MAPS.clone()
    maps[2, 0, 0] = torch.inf
    for metric in (overlap, average_precision):
        with pytest.raises(MethodError, match="NaN or infinite relevance"):
            metric(maps, MASKS)
