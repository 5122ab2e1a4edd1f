"""Building a timm model by name, with pretrained weights or a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from torch import Tensor, nn

from gradtoken.errors import ModelError, did_you_mean, first_line
from gradtoken.models.checkpoint import check_fit, fit, own_names
from gradtoken.models.families import BuiltModel, Size
from gradtoken.models.hub import unreachable
from gradtoken.models.timm.anatomy import read
from gradtoken.models.timm.labels import count_classes
from gradtoken.models.timm.preprocess import build_preprocess

_RANDOM_CLASSES = 1000
"""Classes of a backbone without a head, where its weights are random anyway."""


def check_name(name: str, spec: str, **options: Any) -> None:
    """Check a name and options before any weights are looked for.

    Raises:
        ModelError: unknown to timm, or not a model that can be explained.
    """
    if not timm.is_model(name):
        hint = did_you_mean(name.split(".", maxsplit=1)[0], timm.list_models())
        raise ModelError(
            f"timm has no model named {name!r}{hint or '; `gradtoken models` lists them.'}"
        )
    with torch.device("meta"):
        module = _create(name, **options)
    read(module, spec)


def build(
    name: str, *, pretrained: bool, state: Mapping[str, Tensor] | None, size: Size | None
) -> BuiltModel:
    """A timm model by name, with timm's pretrained weights, or made to fit a checkpoint.

    Args:
        name: a timm model name, with or without a pretrained tag.
        pretrained: whether to load weights; without, they are random, and a backbone without a
            head gets one of a thousand classes.
        state: a checkpoint to load; the number of classes and the input size are read from it.
        size: another input size than the model's (with a checkpoint: than the checkpoint's).

    Raises:
        ModelError: unknown, not to be explained, no weights to be had, a checkpoint that does not
            fit, or a size that the architecture does not take.
    """
    options = {} if size is None else {"img_size": size}
    check_name(name, f"timm/{name}", **options)
    if state is not None:
        module = _from_state(name, state)
        if size is not None:
            resize(module, size, name)
    else:
        module = build_named(name, pretrained, options)
    if size is None:
        return BuiltModel(module)
    config = timm.data.resolve_data_config({}, model=module)
    return BuiltModel(module, build_preprocess({**config, "input_size": (3, *size)}))


def resize(module: Any, size: Size, name: str) -> None:
    """Bring a module to another input size, as timm does: position embeddings are interpolated."""
    try:
        module.set_input_size(img_size=size)
    except (AttributeError, AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{name} ({type(module).__name__}) cannot be brought to {size[0]}x{size[1]} pixels: "
            f"{error}; leave out image_size."
        ) from None


def build_named(name: str, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """A timm model by name, with its pretrained weights or random ones.

    Raises:
        ModelError: if there are no pretrained weights, or they cannot be loaded.
    """
    if not pretrained:
        module = _create(name, **options)
        if count_classes(module):
            return module
        return _create(name, num_classes=_RANDOM_CLASSES, **options)
    tag = timm.get_pretrained_cfg(name)
    if tag is None or not tag.has_weights:
        raise ModelError(
            f"timm has no pretrained weights for {name!r}; pass checkpoint=FILE, or use 'demo'."
        )
    _check_reachable(name)
    try:
        return _create(name, pretrained=True, **options)
    except OSError as error:
        raise ModelError(_no_weights(name)) from error
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"timm cannot load the weights of {name!r}: {error}") from error


def _create(name: str, **options: Any) -> nn.Module:
    try:
        module: nn.Module = timm.create_model(name, **options)
    except (TypeError, AssertionError) as error:
        chosen = ", ".join(
            f"{key}={value}" for key, value in options.items() if key != "pretrained"
        )
        reason = first_line(error)
        raise ModelError(f"timm cannot build {name!r} with {chosen}: {reason}") from error
    except RuntimeError as error:
        if "pretrained tag" not in str(error):
            raise
        base, _, tag = name.partition(".")
        tags = ", ".join(timm.list_pretrained(f"{base}.*")) or "none"
        raise ModelError(f"timm has no weights {tag!r} of {base}; there are: {tags}.") from None
    return module


def _check_reachable(name: str) -> None:
    """Fail at once where the hub's retries would take a minute and the cache holds nothing."""
    from huggingface_hub import constants

    cached = any(Path(constants.HF_HUB_CACHE).glob(f"models--timm--{name}*"))
    if not cached and unreachable():
        raise ModelError(_no_weights(name))


def _no_weights(name: str) -> str:
    return (
        f"the pretrained weights of timm/{name} are not in the cache and cannot be downloaded "
        "(no connection to the hub); pass checkpoint=FILE (--checkpoint), or try the bundled model "
        "with load('demo') (--model demo)."
    )


def _from_state(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    with torch.device("meta"):  # shapes first: a wrong file cannot allocate a large model
        state = own_names(state, _create(name).state_dict())
    tag = timm.get_pretrained_cfg(name)
    classifier = (tag and tag.classifier) or "head"
    key = f"{classifier if isinstance(classifier, str) else classifier[0]}.weight"
    head = state.get(key)
    if head is None or not head.numel() or not head.ndim:
        raise ModelError(
            f"the checkpoint has no {key!r}, so it is no fine-tuned {name}: it begins with "
            f"{', '.join(list(state)[:3])}; save model.state_dict() of the timm model."
        )
    options: dict[str, Any] = {"num_classes": head.shape[0]}
    with torch.device("meta"):
        module: Any = _create(name, **options)
        channels = _other_channels(module, state)
        if channels is not None:
            options["in_chans"] = channels
            module = _create(name, **options)
        size = _other_size(module, state.get("pos_embed"))
        if size is not None:
            options["img_size"] = size
            module = _create(name, **options)
    check_fit(module, state, f"timm/{name}")
    module = _create(name, **options)
    fit(module, state, f"timm/{name}")
    return module


def _other_size(module: Any, position: Tensor | None) -> tuple[int, int] | None:
    """The square input size a checkpoint's position embeddings are for, if not the module's."""
    own = getattr(module, "pos_embed", None)
    if position is None or own is None or position.ndim != own.ndim:
        return None
    if position.shape[1] == own.shape[1]:
        return None
    patches = position.shape[1] - (own.shape[1] - module.patch_embed.num_patches)
    side = math.isqrt(max(patches, 0))
    if side == 0 or side * side != patches:
        return None
    height, width = module.patch_embed.patch_size
    return (side * height, side * width)


def _other_channels(module: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """The channels that a checkpoint's first convolution takes, if not the module's."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            weight = state.get(f"{name}.weight")
            if weight is None or weight.ndim != 4 or weight.shape[1] == part.in_channels:
                return None
            return weight.shape[1]
    return None
