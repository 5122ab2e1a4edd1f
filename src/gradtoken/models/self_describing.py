"""Models in one file: safetensors that describe their architecture, labels and preprocessing.

A description comes from outside. It is checked before anything is built from it, and the
architecture it names must have the shapes of the file's own tensors. These are compared without
memory for them, so that a small file cannot allocate a large model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.images.preprocess import Preprocess
from gradtoken.models.checkpoint import check_fit, fit, own_names, read_checkpoint
from gradtoken.models.families import Size
from gradtoken.models.timm.build import resize
from gradtoken.models.timm.preprocess import build_preprocess
from gradtoken.tap.function_mode import FunctionMode
from gradtoken.targets.activation import Activation, check_activation

_LARGEST_SIDE = 1 << 13
_LONGEST_LABEL = 1000
_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


def read_described(
    path: Path, spec: str, size: Size | None
) -> tuple[VisionTransformer, Preprocess, list[str], Activation | None]:
    """The module, preprocessing, labels and activation of a file that describes itself.

    The activation is None where the description does not say it.

    Raises:
        ModelError: no description, one that makes no sense, or one of another model than the
            file's tensors.
    """
    state, description = read_checkpoint(path)
    try:
        architecture, labels = description["architecture"], _labels(description["classes"])
        preprocess = _preprocess(description, architecture.get("in_chans", 3), size)
        activation = _activation(description.get("activation"))
        _check_depth(architecture, state)
        with _ShapesOnly():
            shapes = VisionTransformer(**architecture)
    except Exception as error:  # a description can make timm raise anything  # noqa: BLE001
        raise ModelError(
            f"{path} does not describe its architecture ({error}); name it, as in "
            f"load('timm/vit_base_patch16_224', checkpoint={str(path)!r})."
        ) from None
    state = own_names(state, shapes.state_dict())
    check_fit(shapes, state, spec)
    module = VisionTransformer(**architecture)
    fit(module, {key: value.float() for key, value in state.items()}, spec)
    if size is not None:
        resize(module, size, spec)
    return module, preprocess, labels, activation


def _labels(classes: Any) -> list[str]:
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes are no list of names")
    if any(len(name) > _LONGEST_LABEL for name in classes):
        raise ValueError(f"a class has a name of more than {_LONGEST_LABEL} letters")
    return classes


def _activation(activation: Any) -> Activation | None:
    return None if activation is None else check_activation(activation)


def _preprocess(description: Mapping[str, Any], channels: Any, size: Size | None) -> Preprocess:
    side, mean, std = (description[key] for key in ("input_size", "mean", "std"))
    if type(side) is not int or not 1 <= side <= _LARGEST_SIDE:
        raise ValueError(f"its input_size is {side!r}, not 1 to {_LARGEST_SIDE}")
    for name, values in (("mean", mean), ("std", std)):
        complete = isinstance(values, list) and type(channels) is int and len(values) == channels
        if not complete or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
            raise ValueError(f"its {name} is not a number for each of {channels!r} channels")
    if not all(std):
        raise ValueError("its std holds a zero")
    return build_preprocess(
        {
            "input_size": (channels, *(size or (side, side))),
            "interpolation": "bicubic",
            "mean": mean,
            "std": std,
            "crop_pct": 1.0,
        }
    ).of_library(channels)


def _check_depth(architecture: Any, state: Mapping[str, Tensor]) -> None:
    depth = architecture.get("depth", 12)
    if type(depth) is not int or depth > len(state):
        raise ValueError(f"its depth is {depth!r}, its tensors are {len(state)}")


class _ShapesOnly(FunctionMode):
    """Tensors made under it have shapes and no data."""

    def intercept(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if func in _FACTORIES and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)
