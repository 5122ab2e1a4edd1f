"""open_clip: reading an unmodified CLIP, and building one by architecture and pretrained tag."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import open_clip
from open_clip.model import resize_pos_embed
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from gradtoken.errors import ModelError, did_you_mean
from gradtoken.images.preprocess import Preprocess
from gradtoken.models import timm as timm_family
from gradtoken.models.checkpoint import fit, own_names
from gradtoken.models.families import Found, Size
from gradtoken.models.hub import no_retries, quiet
from gradtoken.models.layout import TokenLayout
from gradtoken.models.open_clip_text import NamedTokenizer, NoText, OpenClipPrompts
from gradtoken.tap.anatomy import Anatomy, Pool
from gradtoken.targets.labels import Labels
from gradtoken.targets.prompts import Prompts


def read(module: Any, name: str) -> tuple[Anatomy, TokenLayout]:
    """Where things happen in the image side of a CLIP, and which of its tokens are what.

    The image tower may also be given alone.

    Raises:
        ModelError: an image side that is no Vision Transformer, or one that cannot be followed.
    """
    visual = module if _is_tower(module) else getattr(module, "visual", None)
    if isinstance(visual, TimmModel):
        anatomy, layout = timm_family.read(visual.trunk, f"{name} (image side)")
        return replace(anatomy, forward=_embed_image), layout
    if not isinstance(visual, VisionTransformer):
        raise ModelError(
            f"{name} has an image side of kind {type(visual).__name__}, which is no Vision "
            "Transformer; use one such as open_clip/ViT-B-32."
        )
    blocks, patch = tuple(visual.transformer.resblocks), tuple(visual.patch_size)
    if getattr(visual, "attn_pool_contrastive", None) is not None:
        raise ModelError(
            f"{name} pools its picture in a cascade of attention pools, which is not supported; "
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
    if not _is_tower(module):
        return module.encode_image(images)
    found = module(images)
    return found[0] if isinstance(found, tuple) else found


def _is_tower(module: Any) -> bool:
    """Whether a module is the image tower of a CLIP without the rest."""
    return isinstance(module, (TimmModel, VisionTransformer))


def read_preprocess(module: Any) -> Preprocess:
    """open_clip's evaluation preprocessing for a model."""
    settings = PreprocessCfg(**open_clip.get_model_preprocess_cfg(module))
    transform = image_transform_v2(settings, is_train=False)
    return Preprocess(transform, mean=tuple(settings.mean), std=tuple(settings.std))


def count_classes(module: Any) -> int:
    """None: the output is an embedding."""
    return 0


def read_labels(module: Any, classes: int) -> Labels:
    """None."""
    return Labels([])


def read_prompts(module: Any, tokenizer: Any = None) -> Prompts:
    """The text side, with a tokenizer or CLIP's own."""
    return NoText(module) if _is_tower(module) else OpenClipPrompts(module, tokenizer)


def _resize(state: dict[str, Tensor], module: nn.Module, name: str) -> None:
    """Bring a state dict's position embeddings to a module's input size, in place."""
    try:
        resize_pos_embed(state, module)
    except (LookupError, AttributeError, ArithmeticError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the checkpoint's position embeddings do not fit open_clip/{name}: {error}."
        ) from None


def names() -> list[str]:
    """Architectures with the tags of their pretrained weights, but for those on ResNets."""
    return [
        f"{architecture}/{tag}"
        for architecture, tag in open_clip.list_pretrained()
        if not architecture.startswith(("RN", "convnext"))
    ]


def build(
    name: str, *, pretrained: bool, state: Mapping[str, Tensor] | None, size: Size | None
) -> Found:
    """A model by "ARCHITECTURE/TAG" (or "ARCHITECTURE" without weights or with a checkpoint's).

    Raises:
        ModelError: unknown, weights that cannot be had, or a checkpoint that does not fit.
    """
    architecture, _, tag = name.partition("/")
    known = open_clip.list_models()
    if architecture not in known:
        raise ModelError(
            f"open_clip has no model named {architecture!r}"
            f"{did_you_mean(architecture, known) or '; open_clip.list_models() lists them.'}"
        )
    pretrained = pretrained and state is None
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if pretrained and tag not in tags:
        raise ModelError(
            f"open_clip/{architecture} needs a pretrained tag, as in open_clip/{architecture}/TAG "
            f"with one of: {', '.join(tags) or 'none exist'}; or pass checkpoint=FILE or "
            "pretrained=False (--random-weights)."
        )
    try:
        with no_retries(), nullcontext() if pretrained else quiet():
            module: nn.Module = open_clip.create_model(
                architecture,
                pretrained=tag if pretrained else None,
                pretrained_hf=False,
                pretrained_image=False,
                force_image_size=size,
            )
    except (OSError, AssertionError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise ModelError(
            f"open_clip/{name} cannot be built ({first}); if its weights are not in the cache and "
            "there is no connection, pass pretrained=False (--random-weights)."
        ) from None
    if state is not None:
        state = own_names(state, module.state_dict())
        if size is not None:
            _resize(state, module, name)
        fit(module, state, f"open_clip/{architecture}")
    return Found(module, prompts=OpenClipPrompts(module, NamedTokenizer(architecture)))
