"""timm's Vision Transformers: reading an unmodified module, and building one by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from timm.models.cait import Cait
from timm.models.hiera import Hiera
from timm.models.maxxvit import MaxxVit
from timm.models.pit import PoolingVisionTransformer
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from timm.models.xcit import Xcit
from torch import Tensor, nn

from gradtoken.errors import ModelError, did_you_mean
from gradtoken.images.crop_box import Box
from gradtoken.images.preprocess import Preprocess
from gradtoken.models.checkpoint import check_fit, fit, own_names
from gradtoken.models.families import Found, Size
from gradtoken.models.hub import unreachable
from gradtoken.models.layout import TokenLayout
from gradtoken.tap.anatomy import Anatomy, Pool, channels_first, channels_last
from gradtoken.targets.labels import Labels

_PARTS = ("blocks", "norm", "forward_head", "num_prefix_tokens", "global_pool")
_RANDOM_CLASSES = 1000
"""Classes of a backbone without a head, where its weights are random anyway."""
_WINDOWED = (SwinTransformer, SwinTransformerV2, SwinTransformerV2Cr, Hiera, MaxxVit)


def read(module: nn.Module, name: str) -> tuple[Anatomy, TokenLayout]:
    """Where things happen in a timm Vision Transformer, and which of its tokens are what.

    Raises:
        ModelError: no Vision Transformer, or one whose readout cannot be followed.
    """
    if isinstance(module, _WINDOWED):
        return _last_stage(module)
    if isinstance(module, PoolingVisionTransformer):
        return _pooling(module, name)
    if isinstance(module, (Cait, Xcit)):
        return _class_attention(module, name)
    missing = [part for part in _PARTS if not hasattr(module, part)]
    if not missing and not hasattr(_embedding(module), "patch_size"):
        missing = ["patch_size"]
    if missing:
        raise ModelError(
            f"{name} ({type(module).__name__}) is not a Vision Transformer that can be read: it "
            f"has no {missing[0]!r}; use a transformer such as timm/vit_base_patch16_224 or "
            "timm/swin_tiny_patch4_window7_224."
        )
    return _plain(module, name)


def looks_like(module: nn.Module) -> bool:
    """Whether a module of no known library is built as timm builds its Vision Transformers."""
    return all(hasattr(module, part) for part in _PARTS)


def _plain(module: Any, name: str) -> tuple[Anatomy, TokenLayout]:
    """Prefix tokens and patches through `blocks`, then `norm` and `forward_head`."""
    pooling, prefix = module.global_pool, module.num_prefix_tokens
    place: dict[str, Any] = {"patch": _pair(_embedding(module).patch_size), "prefix": prefix}
    blocks = tuple(module.blocks)
    if pooling == "token" and prefix:
        if getattr(module, "dist_token", None) is not None:
            return (
                Anatomy("class and distillation token", blocks),
                TokenLayout(**place, readout=(0, 1)),
            )
        if getattr(module, "cls_token", True) is None:
            raise ModelError(
                f"{name} ({type(module).__name__}) has no class token though global_pool='token', "
                "so its first patch would be its readout; use global_pool='avg'."
            )
        return Anatomy("class token", blocks), TokenLayout(**place)
    if pooling == "avg":
        whole = bool(getattr(module, "pool_include_prefix", False)) and prefix > 0
        words = "mean of all tokens" if whole else "mean of patch tokens"
        layout = TokenLayout(**place, readout=(), pool=0 if whole else prefix)
        return Anatomy(words, blocks, pool=Pool(module.norm)), layout
    if pooling == "map":
        return Anatomy("attention pool", blocks), TokenLayout(**place, readout=())
    raise ModelError(
        f"{name} ({type(module).__name__}) reads its class from global_pool={pooling!r}, which is "
        "no one readout; use a model with 'token', 'avg' or 'map'."
    )


def _embedding(module: Any) -> Any:
    return getattr(module, "patch_embed", None) or getattr(module, "embeds", None)


def _class_attention(module: Any, name: str) -> tuple[Anatomy, TokenLayout]:
    """CaiT and XCiT: a class token that attends to the patches after their blocks."""
    if module.global_pool != "token":
        raise ModelError(
            f"{name} reads its class from global_pool={module.global_pool!r}; only its class "
            "attention (global_pool='token') can be followed."
        )
    patch = _pair(module.patch_embed.patch_size)
    return (
        Anatomy("class attention", tuple(module.blocks), attends=False),
        TokenLayout(patch=patch, prefix=0, readout=()),
    )


def _pooling(module: Any, name: str) -> tuple[Anatomy, TokenLayout]:
    """PiT: the class token in its last stage, at that stage's grid."""
    count = module.cls_token.shape[1]
    words = "class token" if count == 1 else "class and distillation token"
    return (
        Anatomy(f"{words} of the last stage", tuple(module.transformers[-1].blocks)),
        TokenLayout(patch=None, prefix=count, readout=tuple(range(count))),
    )


def _last_stage(module: Any) -> tuple[Anatomy, TokenLayout]:
    """Windowed and hierarchical models: what the head averages, at the last stage's grid."""
    flat = channels_last
    if isinstance(module, (MaxxVit, SwinTransformerV2Cr)):
        flat = channels_first
    elif isinstance(module, Hiera):
        flat = partial(_reroll, module)
    return (
        Anatomy("mean of the last stage", (), pool=Pool(module.head, at_input=True, flat=flat)),
        TokenLayout(patch=None, prefix=0, readout=(), pool=0),
    )


def _reroll(module: Any, features: Tensor) -> Tensor:
    """Hiera's tokens in the order of rows and columns."""
    if features.ndim == 3:
        features = module.reroll(features, len(module.blocks) - 1)
    return features.flatten(1, 2)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def check_name(name: str, spec: str, **options: Any) -> None:
    """Refuse a model by its name and options alone, before any weights are looked for."""
    if not timm.is_model(name):
        hint = did_you_mean(name.split(".")[0], timm.list_models())
        raise ModelError(
            f"timm has no model named {name!r}{hint or '; `gradtoken models` lists them.'}"
        )
    with torch.device("meta"):
        module = _create(name, **options)
    read(module, spec)


def read_preprocess(module: Any, pretrained: Mapping[str, Any] | None = None) -> Preprocess:
    """timm's own evaluation preprocessing for a module.

    Args:
        module: of timm.
        pretrained: how its weights were trained; None is its own `pretrained_cfg`.
    """
    config = timm.data.resolve_data_config(dict(pretrained or {}), model=module)
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if isinstance(size, tuple):
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
    head = head[0] if isinstance(head, tuple) else head
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


def read_prompts(module: Any, tokenizer: Any = None) -> None:
    """These models read no text."""


def build(
    name: str, *, pretrained: bool, state: Mapping[str, Tensor] | None, size: Size | None
) -> Found:
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
        module = _built(name, pretrained, options)
    if size is None:
        return Found(module)
    config = timm.data.resolve_data_config({}, model=module)
    return Found(module, build_preprocess({**config, "input_size": (3, *size)}))


def resize(module: Any, size: Size, name: str) -> None:
    """Bring a module to another input size, as timm does: position embeddings are interpolated."""
    try:
        module.set_input_size(img_size=size)
    except (AttributeError, AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{name} ({type(module).__name__}) cannot be brought to {size[0]}x{size[1]} pixels: "
            f"{error}; leave out image_size."
        ) from None


def _built(name: str, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
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
    _refuse_when_offline(name)
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
        given = ", ".join(f"{key}={value}" for key, value in options.items() if key != "pretrained")
        reason = str(error).splitlines()[0]
        raise ModelError(f"timm cannot build {name!r} with {given}: {reason}") from error
    except RuntimeError as error:
        if "pretrained tag" not in str(error):
            raise
        base, _, tag = name.partition(".")
        known = ", ".join(timm.list_pretrained(f"{base}.*")) or "none"
        raise ModelError(f"timm has no weights {tag!r} of {base}; there are: {known}.") from None
    return module


def _refuse_when_offline(name: str) -> None:
    """Fail at once where the hub's retries would take a minute and its cache has nothing."""
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
    with torch.device("meta"):  # shapes first: a wrong file cannot ask for a large model
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
