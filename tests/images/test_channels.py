"""Arrays of any number of channels as tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gradtoken.images.channels import as_channels
from tests.images.multichannel import array


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64, np.bool_])
def test_as_channels_scales_integers_only(dtype: type) -> None:
    value = array(5) > 0.5 if dtype is np.bool_ else array(5)
    scale = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    result = as_channels(
        (value * scale).round().astype(dtype) if scale > 1 else value.astype(dtype), 5
    )
    assert result.shape == (5, 60, 90)
    expected = torch.from_numpy(value.transpose(2, 0, 1).astype(np.float32))
    torch.testing.assert_close(result, expected, rtol=0, atol=0.51 / 255)
    assert torch.equal(
        as_channels(array(5) * 4000, 5), torch.from_numpy(array(5) * 4000).permute(2, 0, 1)
    )
