"""Fingerprints of a model's weights and preprocessing."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradtoken.models.model import Model


def weights_sha256(model: Model) -> str:
    """SHA-256 of a model's parameters and buffers with their names, saved or not.

    Args:
        model: on any device.

    Returns:
        64 hexadecimal digits.
    """
    module = model.module
    tensors: dict[str, Tensor] = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def preprocessing_sha256(model: Model) -> str:
    """SHA-256 of a preprocessed image of noise.

    Args:
        model: any.

    Returns:
        64 hexadecimal digits.
    """
    noise = np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    tensor = model.preprocess(Image.fromarray(noise))
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
