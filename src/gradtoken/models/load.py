"""`load` a model by name."""

from __future__ import annotations

import os
from importlib.resources import as_file, files
from pathlib import Path

import timm
import torch

from gradtoken.errors import ModelError, did_you_mean
from gradtoken.models.build_model import LoadedModule, build_model
from gradtoken.models.families import FAMILIES, Size
from gradtoken.models.forks import one_thread_in_forks
from gradtoken.models.load_options import parse_device, parse_dtype, parse_size
from gradtoken.models.model import Model
from gradtoken.models.sources import load_described, load_named
from gradtoken.targets.activation import Activation, check_activation

BUNDLED = {"demo": "demo.safetensors", "demo-in-domain": "demo_in_domain.safetensors"}
"""Files of the bundled models by name."""


def describes_itself(name: str) -> bool:
    """Whether a name is a bundled model's or a file's that brings architecture and weights."""
    return name in BUNDLED or Path(name).suffix == ".safetensors"


def load(
    spec: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: bool = True,
    image_size: int | tuple[int, int] | None = None,
    activation: Activation | None = None,
) -> Model:
    """Load a model to explain.

    Args:
        spec: "demo" (the bundled model) or "demo-in-domain" (the same, fine-tuned on images with a
            deleted cell, for IDSDS); "timm/NAME", "torchvision/NAME",
            "hf/HUB-ID" or "hf/LOCAL-FOLDER", "open_clip/ARCHITECTURE/TAG", each with its library's
            own weights, cache, preprocessing and labels; or the path of a `.safetensors` file that
            describes its architecture, as the demo's does.
        device: where to put it; None is CUDA if there is one, else the CPU.
        dtype: what to compute in ("float32", "bfloat16", …); None is float32.
        checkpoint: your own weights for the architecture "timm/NAME", "torchvision/NAME" or
            "open_clip/ARCHITECTURE": a state dict as `.safetensors`, `.pt`, `.pth` or `.bin`, or a
            trainer's checkpoint (`.ckpt`, `.pth.tar`) that holds one under `state_dict`,
            `model_state_dict`, `model` or `module`, rather than its moving averages
            (`state_dict_ema`, `model_ema`), which are taken where they are alone. The number of
            classes is read from it. (Of transformers, name the folder that `save_pretrained` made.)
        pretrained: False builds the architecture with random weights (always the same ones), from
            nothing but its name; "hf/" then also takes model types such as "hf/dinov2".
        image_size: (height, width) in pixels, or one number for both, that images are brought to
            instead of the model's own size; its position embeddings are interpolated, as its
            library does.
        activation: how logits become probabilities: "softmax" (one class of all), "sigmoid" (each
            class by itself: multi-label and binary models) or "none" (a regression). None takes
            what the library or the file says (transformers' `problem_type`, `activation` in the
            file's description), sigmoid for one logit, and softmax otherwise.

    Raises:
        ModelError: unknown name, weights that cannot be had, a size that the architecture does not
            take, an activation that does not fit, or a model that cannot be explained.
    """
    one_thread_in_forks()
    if not isinstance(spec, (str, os.PathLike)):
        raise ModelError(f"load() takes a name or a path, it got {type(spec).__name__}.")
    name = os.fspath(spec)
    _check_weights(name, checkpoint, pretrained)
    size = parse_size(image_size)
    if activation is not None:
        check_activation(activation)
    loaded = _load(name, checkpoint, pretrained, size)
    loaded.module.eval().to(device=parse_device(device), dtype=parse_dtype(dtype))
    return build_model(loaded, activation=activation)


def _check_weights(name: str, checkpoint: str | os.PathLike[str] | None, pretrained: bool) -> None:
    """See that `checkpoint` and `pretrained` go with a name."""
    prefix = name.partition("/")[0]
    if checkpoint is not None and prefix not in ("timm", "torchvision", "open_clip"):
        raise ModelError(
            f"{name!r} brings its own weights; checkpoint= goes with 'timm/NAME', "
            "'torchvision/NAME' and 'open_clip/ARCHITECTURE'"
            + (" (for hf/, name the local folder)." if prefix == "hf" else ".")
        )
    if not pretrained and (describes_itself(name) or checkpoint is not None):
        raise ModelError("pretrained=False builds an architecture by name, without a weights file.")


def _load(
    name: str,
    checkpoint: str | os.PathLike[str] | None,
    pretrained: bool,
    size: Size | None,
) -> LoadedModule:
    prefix, _, rest = name.partition("/")
    if name in BUNDLED:
        with as_file(files("gradtoken.models") / "assets" / BUNDLED[name]) as path:
            return load_described(path, name, size, weights="bundled")
    if describes_itself(name):
        return load_described(Path(name), name, size, weights=name)
    if prefix in FAMILIES and rest:
        return load_named(prefix, rest, checkpoint, pretrained, size)
    near = did_you_mean(name, ["demo"]) or _as_timm(name)
    usual = "; use demo, timm/NAME, hf/ID, torchvision/NAME, open_clip/NAME/TAG or a file."
    raise ModelError(f"no model is named {name!r}{near or usual}")


def _as_timm(name: str) -> str:
    return f"; did you mean 'timm/{name}'?" if timm.is_model(name) else ""
