"""Reading an unmodified Vision Transformer of timm."""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.layers import HybridEmbed
from timm.models.cait import Cait
from timm.models.hiera import Hiera
from timm.models.maxxvit import MaxxVit
from timm.models.pit import PoolingVisionTransformer
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from timm.models.xcit import Xcit
from torch import Tensor, nn

from gradtoken.errors import ModelError
from gradtoken.models.families import pair
from gradtoken.models.layout import TokenLayout
from gradtoken.tap.anatomy import Anatomy, Pool, channels_first, channels_last

_PARTS = ("blocks", "norm", "forward_head", "num_prefix_tokens", "global_pool")
_WINDOWED = (SwinTransformer, SwinTransformerV2, SwinTransformerV2Cr, Hiera, MaxxVit)


def read(module: nn.Module, name: str) -> tuple[Anatomy, TokenLayout]:
    """The anatomy and token layout of a timm Vision Transformer.

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
    """Whether a module of no known library has the parts of timm's Vision Transformers."""
    return all(hasattr(module, part) for part in _PARTS)


def _plain(module: Any, name: str) -> tuple[Anatomy, TokenLayout]:
    """Prefix tokens and patches through `blocks`, then `norm` and `forward_head`."""
    pooling, prefix = module.global_pool, module.num_prefix_tokens
    place: dict[str, Any] = {"patch": _patch(_embedding(module)), "prefix": prefix}
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


def _patch(embedding: Any) -> tuple[int, int]:
    """Height and width of a patch in pixels, also of one cut from a convolutional network's map."""
    if isinstance(embedding, HybridEmbed):
        height, width = embedding.feat_ratio(as_scalar=False)
        return int(height), int(width)
    return pair(embedding.patch_size)


def _class_attention(module: Any, name: str) -> tuple[Anatomy, TokenLayout]:
    """CaiT and XCiT: a class token that attends to the patches after their blocks."""
    if module.global_pool != "token":
        raise ModelError(
            f"{name} reads its class from global_pool={module.global_pool!r}; only its class "
            "attention (global_pool='token') can be followed."
        )
    patch = pair(module.patch_embed.patch_size)
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
