"""gradtoken's methods as an explanation function for Quantus and its metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from gradtoken.adapters.captum import Attribution
from gradtoken.models import Model
from gradtoken.targets.activation import Activation


def quantus_explain_func(
    model: Model | nn.Module,
    inputs: Any,
    targets: Any,
    *,
    method: str = "gradtoken",
    device: Any = None,
    activation: Activation | None = None,
    **options: Any,
) -> np.ndarray[Any, Any]:
    """Maps (batch, 1, height, width) for Quantus' `explain_func=`.

    Args:
        model: the module that Quantus evaluates, or a `Model`.
        inputs: preprocessed images (batch, channels, height, width), array or tensor.
        targets: a class id per image.
        method: a name from `methods()`, passed in Quantus' `explain_func_kwargs`.
        device: of the model; passed by Quantus.
        activation: of a module, as for `wrap`, passed in `explain_func_kwargs`.
        **options: the method's options, passed in `explain_func_kwargs`.

    Example:
        >>> metric = quantus.PixelFlipping(...)
        >>> metric(module, x, y, explain_func=quantus_explain_func,
        ...        explain_func_kwargs={"method": "gae"})
    """
    attribution = Attribution(model, method, activation=activation, **options)
    tensor = torch.as_tensor(np.asarray(inputs), device=device)
    pixels = attribution.attribute(tensor, torch.as_tensor(np.asarray(targets)))
    assert isinstance(pixels, torch.Tensor)
    maps: np.ndarray[Any, Any] = pixels.sum(1, keepdim=True).detach().cpu().numpy()
    return maps
