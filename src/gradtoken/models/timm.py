"""timm's Vision Transformers: reading an unmodified module, and building one by name."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

import timm
import timm.data
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.errors import ModelError, did_you_mean
from gradtoken.geometry import Box
from gradtoken.labels import Labels
from gradtoken.layout import TokenLayout
from gradtoken.preprocess import Preprocess

_PARTS = ("patch_embed", "blocks", "norm", "forward_head", "num_prefix_tokens", "global_pool")


@dataclass(frozen=True)
class TimmStream:
    """The class token through a timm ViT: `blocks`, then `norm` and `forward_head`."""

    module: Any

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.module.blocks)

    def head(self, token: Float[Tensor, "rows 1 dim"]) -> Float[Tensor, "rows classes"]:
        out: Tensor = self.module.forward_head(self.module.norm(token))
        return out


def check_readable(module: nn.Module, name: str) -> None:
    """Refuse, by name and reason, a module whose class token cannot be followed.

    Raises:
        ModelError: no Vision Transformer, or one that does not read its class from a class token.
    """
    kind = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{name} is a scripted module, which hides its attention; pass the original."
        )
    missing = [part for part in _PARTS if not hasattr(module, part)]
    if missing:
        raise ModelError(
            f"{name} ({kind}) is not a timm-style Vision Transformer: it has no {missing[0]!r}; "
            "GradToken explains transformers with a class token, such as timm/vit_base_patch16_224."
        )
    readable: Any = module
    if getattr(readable, "dist_token", None) is not None:
        raise ModelError(
            f"{name} ({kind}) reads a distillation token beside the class token, which is not "
            "supported yet; use its undistilled sibling."
        )
    if readable.global_pool != "token" or getattr(readable, "attn_pool", None) is not None:
        raise ModelError(
            f"{name} ({kind}) reads its class from {readable.global_pool!r} pooling, not from a "
            "class token, which is not supported yet; use a model with global_pool='token'."
        )
    if getattr(readable, "cls_token", None) is None:
        raise ModelError(f"{name} ({kind}) has no class token, so there is none to decouple.")


def check_name(name: str, spec: str) -> None:
    """Refuse a model by its name alone, before any weights are looked for."""
    if not timm.is_model(name):
        hint = did_you_mean(name.split(".")[0], timm.list_models())
        raise ModelError(
            f"timm has no model named {name!r}{hint or '; `gradtoken models` lists them.'}"
        )
    with torch.device("meta"):
        module = _create(name)
    check_readable(module, spec)


def read_layout(module: Any) -> TokenLayout:
    """The token layout of a timm ViT: class token first, then registers, then the patches."""
    height, width = module.patch_embed.patch_size
    return TokenLayout(patch=(height, width), prefix=module.num_prefix_tokens, readout=0)


def read_preprocess(module: Any) -> Preprocess:
    """timm's own evaluation preprocessing for a module, from its `pretrained_cfg`."""
    config = timm.data.resolve_data_config({}, model=module)
    size = getattr(module.patch_embed, "img_size", None)
    if size is not None:
        config["input_size"] = (3, *size)
    return build_preprocess(config)


def build_preprocess(config: Mapping[str, Any]) -> Preprocess:
    """timm's evaluation preprocessing for a data config (input_size, mean, std, crop_pct, …)."""
    mode = config.get("crop_mode") or "center"
    height, width = config["input_size"][1:]
    crop = config.get("crop_pct") or timm.data.constants.DEFAULT_CROP_PCT
    known = mode == "center" and height == width
    return Preprocess(
        transform=timm.data.create_transform(**config, is_training=False),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        geometry=partial(_centre_box, input_size=height, crop_pct=crop) if known else None,
    )


def _centre_box(size: tuple[int, int], *, input_size: int, crop_pct: float) -> Box:
    """What resizing the short side and cropping the centre keeps of a picture."""
    short = math.floor(input_size / crop_pct)
    resized = [short if side == min(size) else int(short * side / min(size)) for side in size]
    starts = [round((side - input_size) / 2.0) for side in resized]
    across, down = (got / side for got, side in zip(resized, size, strict=True))
    return Box(
        starts[0] / across,
        starts[1] / down,
        (starts[0] + input_size) / across,
        (starts[1] + input_size) / down,
    )


def count_classes(module: Any) -> int:
    """How many classes the head has, also where another was put in place of timm's own."""
    head = module.get_classifier() if hasattr(module, "get_classifier") else None
    parts = head.modules() if isinstance(head, nn.Module) else ()
    sizes = [part.out_features for part in parts if isinstance(part, nn.Linear)]
    return int(sizes[-1] if sizes else getattr(module, "num_classes", 0))


def read_labels(module: Any, classes: int) -> Labels:
    """ImageNet names where the module has as many classes as an ImageNet subset, else numbers."""
    pretrained = getattr(module, "pretrained_cfg", None) or {}
    subset = timm.data.infer_imagenet_subset({"num_classes": classes})
    if subset is None or pretrained.get("num_classes") != classes:
        return Labels.numbered(classes)
    info = timm.data.ImageNetInfo(subset)
    return Labels([info.index_to_description(index) for index in range(classes)])


def build(name: str, *, state: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A timm model by name, with timm's pretrained weights, or made to fit a checkpoint.

    Args:
        name: a timm model name that `check_name` let pass, with or without a pretrained tag.
        state: a checkpoint to load; the number of classes and the input size are read from it.

    Raises:
        ModelError: no weights to be had, or a checkpoint that does not fit.
    """
    if state is not None:
        return _from_state(name, state)
    tag = timm.get_pretrained_cfg(name)
    if tag is None or not tag.has_weights:
        raise ModelError(
            f"timm has no pretrained weights for {name!r}; pass checkpoint=FILE, or use 'demo'."
        )
    _refuse_when_offline(name)
    try:
        return _create(name, pretrained=True)
    except OSError as error:
        raise ModelError(_no_weights(name)) from error
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"timm cannot load the weights of {name!r}: {error}") from error


def _create(name: str, **options: Any) -> nn.Module:
    try:
        module: nn.Module = timm.create_model(name, **options)
    except (TypeError, AssertionError) as error:
        raise ModelError(f"timm cannot build {name!r} with {options}: {error}") from error
    return module


def _refuse_when_offline(name: str) -> None:
    """Fail at once where the hub's retries would take a minute and its cache has nothing."""
    from huggingface_hub import constants

    if getproxies() or any(Path(constants.HF_HUB_CACHE).glob(f"models--timm--{name}*")):
        return
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        raise ModelError(_no_weights(name)) from None


def _no_weights(name: str) -> str:
    return (
        f"the pretrained weights of timm/{name} are not in the cache and cannot be downloaded "
        "(no connection to the hub); pass checkpoint=FILE (--checkpoint), or try the bundled model "
        "with load('demo') (--model demo)."
    )


def _from_state(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    head = state.get("head.weight")
    if head is None:
        raise ModelError(
            f"the checkpoint has no 'head.weight', so it is no fine-tuned {name}: it begins with "
            f"{', '.join(list(state)[:3])}; save model.state_dict() of the timm model."
        )
    module: Any = _create(name, num_classes=head.shape[0])
    size = _other_size(module, state.get("pos_embed"))
    if size is not None:
        module = _create(name, num_classes=head.shape[0], img_size=size)
    fit(module, state, f"timm/{name}")
    return module


def _other_size(module: Any, position: Tensor | None) -> tuple[int, int] | None:
    """The square input size a checkpoint's position embeddings are for, if not the module's."""
    own = getattr(module, "pos_embed", None)
    if position is None or own is None or position.shape[1] == own.shape[1]:
        return None
    patches = position.shape[1] - (own.shape[1] - module.patch_embed.num_patches)
    side = math.isqrt(max(patches, 0))
    if side == 0 or side * side != patches:
        return None
    height, width = module.patch_embed.patch_size
    return (side * height, side * width)


def fit(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load a state dict strictly, or say in one sentence what does not fit."""
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    problems = []
    if missing:
        problems.append(f"it lacks {missing[0]!r} ({len(missing)} missing)")
    if unknown:
        problems.append(f"it has {unknown[0]!r}, which the model has not ({len(unknown)} so)")
    for key in own:
        if key in state and state[key].shape != own[key].shape:
            theirs, ours = tuple(state[key].shape), tuple(own[key].shape)
            problems.append(f"{key} is {theirs}, the model's {ours}")
            break
    if problems:
        raise ModelError(
            f"the checkpoint does not fit {name}: {'; '.join(problems)}; name the architecture it "
            "was trained with."
        )
    module.load_state_dict(state)
