"""Public attributes of a model."""

from __future__ import annotations

import pytest
import torch

from gradtoken.models import Model


def test_apart_is_deprecated_name_of_writable(model: Model) -> None:
    tensor = torch.ones(2)
    with pytest.warns(DeprecationWarning, match="Model.writable"):
        copy = model.apart(tensor)
    assert (copy is tensor) == (model.writable(tensor) is tensor)
    torch.testing.assert_close(copy, tensor)
