"""`load` a model by name, or `wrap` one you have."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gradtoken.errors import ModelError, did_you_mean
from gradtoken.labels import Labels
from gradtoken.layout import TokenLayout
from gradtoken.models import timm as family
from gradtoken.models.checkpoint import read_checkpoint
from gradtoken.models.model import Model
from gradtoken.preprocess import Preprocess

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def load(
    spec: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Model:
    """Load a model to explain.

    Args:
        spec: "demo" (the bundled model), "timm/NAME" (timm's weights, cache and preprocessing), or
            the path of a `.safetensors` file that describes its architecture, as the demo's does.
        device: where to put it; None is CUDA if there is one, else the CPU.
        dtype: what to compute in ("float32", "bfloat16", …); None is float32.
        checkpoint: your own weights for the architecture "timm/NAME": a `.safetensors` or `.pt`
            state dict. The number of classes is read from it.

    Raises:
        ModelError: unknown name, weights that cannot be had, or a model that cannot be explained.
    """
    if not isinstance(spec, (str, os.PathLike)):
        raise ModelError(f"load() takes a name or a path, it got {type(spec).__name__}.")
    name = os.fspath(spec)
    describes_itself = name == "demo" or Path(name).suffix == ".safetensors"
    if describes_itself and checkpoint is not None:
        raise ModelError(f"{name!r} brings its own weights; checkpoint= goes with 'timm/NAME'.")
    if name == "demo":
        with as_file(files("gradtoken.models") / "assets" / "demo.safetensors") as path:
            model = _described(path, "demo")
    elif name.startswith("timm/"):
        model = _timm(name, checkpoint)
    elif describes_itself:
        model = _described(Path(name), name)
    else:
        near = did_you_mean(name, ["demo"]) or _as_timm(name)
        raise ModelError(
            f"no model is named {name!r}{near or '; use demo, timm/NAME or a .safetensors file.'}"
        )
    model.module.eval().to(device=_device(device), dtype=_dtype(dtype))
    return model


def wrap(
    module: nn.Module,
    *,
    preprocess: Preprocess | Callable[[Image.Image], Tensor] | None = None,
    labels: Sequence[str] | None = None,
    layout: TokenLayout | None = None,
) -> Model:
    """Make your own timm-style Vision Transformer explainable. The module itself is not changed.

    Args:
        module: a module with a class token, blocks and a head, as timm builds them; of a module
            from `torch.compile` the original is explained.
        preprocess: from a PIL image to a normalised (3, H, W) tensor: any deterministic resize and
            crop. None uses timm's for this module.
        labels: one name per class. None uses ImageNet's names where the head has as many classes
            as timm's pretrained one, and "class 0", "class 1", … otherwise.
        layout: which tokens are what; None reads it from the module.

    Raises:
        ModelError: if the class token of this module cannot be followed, or the labels do not fit.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"wrap() needs a torch module, it got {type(module).__name__}; load(…) takes names."
        )
    module = getattr(module, "_orig_mod", module)
    if preprocess is not None and not isinstance(preprocess, Preprocess):
        preprocess = Preprocess(preprocess)
    return _read(module, type(module).__name__, preprocess, labels, layout)


def _read(
    module: nn.Module,
    spec: str,
    preprocess: Preprocess | None = None,
    labels: Sequence[str] | None = None,
    layout: TokenLayout | None = None,
    weights: str = "as given",
) -> Model:
    """A module as a `Model`; what is not given is read from the module."""
    family.check_readable(module, spec)
    return Model(
        module=module,
        spec=spec,
        preprocess=preprocess or family.read_preprocess(module),
        labels=_labels(module, labels, spec),
        layout=layout or family.read_layout(module),
        stream=family.TimmStream(module),
        weights=weights,
    )


def _timm(spec: str, checkpoint: str | os.PathLike[str] | None) -> Model:
    name = spec.removeprefix("timm/")
    state, description = (
        (None, {}) if checkpoint is None else read_checkpoint(os.fspath(checkpoint))
    )
    family.check_name(name, spec)
    module = family.build(name, state=state)
    weights = "timm" if checkpoint is None else os.fspath(checkpoint)
    return _read(module, spec, labels=description.get("classes"), weights=weights)


def _described(path: Path, spec: str) -> Model:
    """A model whose safetensors file describes its architecture, labels and preprocessing."""
    state, description = read_checkpoint(path)
    try:
        module = VisionTransformer(**description["architecture"])
        labels, side = description["classes"], description["input_size"]
        preprocess = family.build_preprocess(
            {
                "input_size": (3, side, side),
                "interpolation": "bicubic",
                "mean": description["mean"],
                "std": description["std"],
                "crop_pct": 1.0,
            }
        )
    except (
        LookupError,
        TypeError,
        ArithmeticError,
        ValueError,
        RuntimeError,
        AssertionError,
    ) as error:
        raise ModelError(
            f"{path} does not describe its architecture ({error}); name it, as in "
            f"load('timm/vit_base_patch16_224', checkpoint={str(path)!r})."
        ) from None
    family.fit(module, {key: value.float() for key, value in state.items()}, spec)
    weights = "bundled" if spec == "demo" else str(path)
    return _read(module, spec, preprocess, labels, weights=weights)


def _labels(module: Any, labels: Sequence[str] | None, name: str) -> Labels:
    classes = family.count_classes(module)
    if not classes:
        raise ModelError(f"{name} has no classification head (no classes); give it one.")
    if labels is None:
        return family.read_labels(module, classes)
    if len(labels) != classes:
        raise ModelError(f"{len(labels)} labels were given for the {classes} classes of {name}.")
    return Labels(labels)


def _as_timm(name: str) -> str:
    return f"; did you mean 'timm/{name}'?" if timm.is_model(name) else ""


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
        if found.type == "meta":
            raise RuntimeError("it holds no data")
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ModelError(f"device {str(device)!r} cannot be used: {_first_line(error)}") from None
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["unknown reason"])[0]


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return torch.float32
    if isinstance(dtype, torch.dtype) and dtype in _DTYPES.values():
        return dtype
    if str(dtype) in _DTYPES:
        return _DTYPES[str(dtype)]
    raise ModelError(f"dtype {str(dtype)!r} cannot be used; choose from {', '.join(_DTYPES)}.")
