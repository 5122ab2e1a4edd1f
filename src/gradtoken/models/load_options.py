"""The size, device and type that `load` takes."""

from __future__ import annotations

from typing import Any

import torch

from gradtoken.errors import ModelError, first_line
from gradtoken.images.load_image import MAX_PIXELS
from gradtoken.models.families import Size

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def parse_size(image_size: Any) -> Size | None:
    """An image size as (height, width).

    Raises:
        ModelError: if it is no size, or too large.
    """
    pair = (image_size, image_size) if isinstance(image_size, int) else image_size
    if pair is None:
        return None
    whole = isinstance(pair, (tuple, list)) and all(type(side) is int for side in pair)
    if not whole or len(pair) != 2 or min(pair) < 1:
        raise ModelError(
            f"image_size={image_size!r} is no size; give one number of pixels or (height, width)."
        )
    if pair[0] * pair[1] > MAX_PIXELS:
        raise ModelError(
            f"image_size={image_size!r} is more than {MAX_PIXELS:,} pixels, the limit of images; "
            "give a smaller one."
        )
    return pair[0], pair[1]


def parse_device(device: str | torch.device | None) -> torch.device:
    """A device that can be used; None is CUDA if there is one, else the CPU.

    Raises:
        ModelError: if it cannot be used.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
        if chosen.type == "meta":
            raise RuntimeError("it holds no data")
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = first_line(error, "unknown reason")
        raise ModelError(f"device {str(device)!r} cannot be used: {reason}") from None
    return chosen


def parse_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """A floating type by name or as torch's; None is float32.

    Raises:
        ModelError: if models cannot be run in it.
    """
    if dtype is None:
        return torch.float32
    if isinstance(dtype, torch.dtype) and dtype in _DTYPES.values():
        return dtype
    if str(dtype) in _DTYPES:
        return _DTYPES[str(dtype)]
    raise ModelError(f"dtype {str(dtype)!r} cannot be used; choose from {', '.join(_DTYPES)}.")
