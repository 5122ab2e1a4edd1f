"""Reading the image side of an unmodified CLIP of open_clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.models.layout import TokenLayout
from gradtoken.models.timm.anatomy import read as read_timm
from gradtoken.tap.anatomy import Anatomy, Pool


def read(module: Any, name: str) -> tuple[Anatomy, TokenLayout]:
    """The anatomy and token layout of the image side of a CLIP.

    The image tower may also be given alone.

    Raises:
        ModelError: an image side that is no Vision Transformer, or one that cannot be followed.
    """
    visual = module if is_image_tower(module) else getattr(module, "visual", None)
    if isinstance(visual, TimmModel):
        anatomy, layout = read_timm(visual.trunk, f"{name} (image side)")
        return replace(anatomy, forward=_embed_image), layout
    if not isinstance(visual, VisionTransformer):
        raise ModelError(
            f"{name} has an image side of kind {type(visual).__name__}, which is no Vision "
            "Transformer; use one such as open_clip/ViT-B-32."
        )
    blocks, patch = tuple(visual.transformer.resblocks), tuple(visual.patch_size)
    if getattr(visual, "attn_pool_contrastive", None) is not None:
        raise ModelError(
            f"{name} pools its image in a cascade of attention pools, which is not supported; "
            "use a CLIP with a class token, such as open_clip/ViT-B-32."
        )
    if visual.attn_pool is not None:
        return (
            Anatomy("attention pool", blocks, forward=_embed_image),
            TokenLayout(patch, 1, ()),
        )
    if visual.pool_type == "avg":
        pool = Pool(blocks[-1] if visual.final_ln_after_pool else visual.ln_post)
        return (
            Anatomy("mean of patch tokens", blocks, pool=pool, forward=_embed_image),
            TokenLayout(patch, 1, (), pool=1),
        )
    return Anatomy("class token, projected", blocks, forward=_embed_image), TokenLayout(patch, 1)


def _embed_image(module: Any, images: Tensor) -> Any:
    """Image embeddings (B, E), as the model projects them."""
    if not is_image_tower(module):
        return module.encode_image(images)
    features = module(images)
    return features[0] if isinstance(features, tuple) else features


def is_image_tower(module: Any) -> bool:
    """Whether a module is the image tower of a CLIP without the rest."""
    return isinstance(module, (TimmModel, VisionTransformer))
