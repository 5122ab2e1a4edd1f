"""Maps in half precision."""

from __future__ import annotations

import numpy as np


def test_as_shares_keeps_small_and_large_maps() -> None:
    from gradtoken.batch.results.schema import as_shares

    for size in (1e-12, 1.0, 1e12):
        tokens = size * np.linspace(-1, 0.5, 12, dtype=np.float32).reshape(3, 4)
        scale, shares = as_shares(tokens)
        np.testing.assert_allclose(
            shares.astype(np.float32).reshape(3, 4) * scale, tokens, atol=6e-4 * size
        )
    scale, shares = as_shares(np.zeros((2, 2), np.float32))
    assert scale == 0
    assert not shares.any()
