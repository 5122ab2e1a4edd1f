"""What every data set inherits."""

from __future__ import annotations

from typing import ClassVar

import pytest
from PIL import Image

from gradtoken.datasets import Sample, Samples


class _Two(Samples):
    kind: ClassVar[str] = "two"

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        return Sample(str(self.checked_index(index)), Image.new("RGB", (2, 2)))


def test_checked_index_rejects_other_indices() -> None:
    assert [sample.id for sample in _Two()] == ["0", "1"]
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"sample {index} of 2"):
            _Two()[index]
