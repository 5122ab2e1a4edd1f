"""Samples whose parts do not fit together are errors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradtoken.bench.sample_checks import checked_samples
from gradtoken.errors import DatasetError
from tests.bench.toys import sample


def test_checked_samples_rejects_inconsistent_samples() -> None:
    plain = sample("a", 0)
    rotated = plain.image.copy()
    rotated.getexif()[274] = 6
    for change, words in (
        ({"masks": plain.masks[:, :, ::2]}, r"the masks of 'a' are of \(64, 32\) pixels"),
        ({"ignore": plain.masks[0, ::2]}, r"the pixels to ignore of 'a' are of \(32, 64\) pixels"),
        ({"names": ("class 3",)}, "has 2 masks and 1 names"),
        ({"image": plain.image.convert("L")}, "the image of 'a' is L or not upright"),
        ({"image": rotated}, "the image of 'a' is RGB or not upright"),
    ):
        with pytest.raises(DatasetError, match=words):
            next(checked_samples([replace(plain, **change)]))
