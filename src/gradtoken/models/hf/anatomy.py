"""Reading an unmodified `PreTrainedModel` of Hugging Face transformers.

Module paths differ between transformers 4 and 5, so blocks are found by their number and kind, not
by path.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from gradtoken.errors import ModelError
from gradtoken.models.families import pair
from gradtoken.models.layout import TokenLayout
from gradtoken.models.timm.anatomy import read as read_timm
from gradtoken.tap.anatomy import Anatomy, Pool, run_with_arguments
from gradtoken.tap.logits import as_logits

_CLASS_TOKEN = ("vit", "deit", "vit_msn")
_CLASS_AND_MEAN = ("dinov2", "dinov2_with_registers")
_BEIT = ("beit", "data2vec-vision")
_WINDOWED = ("swin", "swinv2", "hiera")
TEXT_MODELS = ("clip", "siglip")
KNOWN = (*_CLASS_TOKEN, *_CLASS_AND_MEAN, *_BEIT, "ijepa", *TEXT_MODELS, *_WINDOWED)


def read(module: Any, name: str) -> tuple[Anatomy, TokenLayout]:  # noqa: C901, PLR0911
    """The anatomy and token layout of a transformers model.

    Raises:
        ModelError: an architecture that is not known, or one without a head.
    """
    kind = module.config.model_type
    if kind == "timm_wrapper" and _classifies_by_timm(module):
        anatomy, layout = read_timm(module.timm_model, name)
        return replace(anatomy, forward=classify), layout
    if kind not in KNOWN or not (_classifies(module) or compares_text(module)):
        raise ModelError(
            f"{name} ({type(module).__name__}) is not supported: its readout is not known; use "
            f"AutoModelForImageClassification of {', '.join(KNOWN)}, or CLIPModel or SiglipModel."
        )
    if kind in _WINDOWED:
        return _last_stage(module, kind)
    vision = getattr(module, "vision_model", module)
    config = getattr(module.config, "vision_config", module.config)
    blocks = _blocks(vision, config.num_hidden_layers, name)
    forward = embed_image if compares_text(module) else classify
    make = partial(Anatomy, blocks=blocks, step=run_with_arguments, forward=forward)
    patch = pair(config.patch_size)
    if kind == "clip" and _classifies(module):
        pool = Pool(blocks[-1])
        return make("mean of patch tokens", pool=pool), TokenLayout(patch, 1, (), pool=1)
    if kind == "clip":
        return make("class token, projected"), TokenLayout(patch, 1)
    if kind == "siglip" and _classifies(module):
        pool = Pool(_named(vision, "post_layernorm"))
        return make("mean of patch tokens", pool=pool), TokenLayout(patch, 0, (), pool=0)
    if kind == "siglip":
        return make("attention pool"), TokenLayout(patch, 0, ())
    if kind == "ijepa":
        pool = Pool(_named(module, "layernorm"))
        return make("mean of patch tokens", pool=pool), TokenLayout(patch, 0, (), pool=0)
    if kind in _CLASS_AND_MEAN:
        prefix = 1 + getattr(config, "num_register_tokens", 0)
        pool = Pool(_named(module, "layernorm"))
        layout = TokenLayout(patch, prefix, 0, pool=prefix)
        return make("class token and mean of patch tokens", pool=pool), layout
    if kind in _BEIT and config.use_mean_pooling:
        pool = Pool(blocks[-1])
        return make("mean of patch tokens", pool=pool), TokenLayout(patch, 1, (), pool=1)
    if kind == "deit":
        if hasattr(module, "distillation_classifier"):
            return make("class and distillation token"), TokenLayout(patch, 2, (0, 1))
        return make("class token"), TokenLayout(patch, 2)
    return make("class token"), TokenLayout(patch, 1)


def _last_stage(module: Any, kind: str) -> tuple[Anatomy, TokenLayout]:
    """Windowed and hierarchical models: what the head averages, at the last stage's grid."""
    if kind == "hiera":
        encoder = module.hiera.encoder
        pool = Pool(module.hiera.pooler, at_input=True, flat=partial(_reroll, encoder))
    else:
        pool = Pool(_named(module, "layernorm"))
    return (
        Anatomy("mean of the last stage", (), pool=pool, forward=classify),
        TokenLayout(patch=None, prefix=0, readout=(), pool=0),
    )


def _reroll(encoder: Any, features: Tensor) -> Tensor:
    """Hiera's tokens in the order of rows and columns."""
    stage = len(encoder.stages) - 1
    return encoder.reroll(features, stage_idx=stage, bool_masked_pos=None).flatten(1, 2)


def _classifies(module: Any) -> bool:
    return any(hasattr(module, head) for head in ("classifier", "cls_classifier"))


def _classifies_by_timm(module: Any) -> bool:
    return hasattr(module, "timm_model") and int(module.config.num_labels) > 0


def compares_text(module: Any) -> bool:
    """Whether a model has an image side and a text side."""
    return hasattr(module, "get_text_features") and hasattr(module, "get_image_features")


def _blocks(module: nn.Module, depth: int, name: str) -> tuple[nn.Module, ...]:
    """The transformer blocks: the list of as many modules of one kind as the config says."""
    for part in module.modules():
        kinds = {type(child).__name__ for child in part.children()}
        alike = len(kinds) == 1 and kinds.pop().endswith("Layer")
        if isinstance(part, nn.ModuleList) and len(part) == depth and alike:
            return tuple(part)
    raise ModelError(f"{name} ({type(module).__name__}) has no list of {depth} blocks to follow.")


def _named(module: nn.Module, last: str) -> nn.Module:
    """The outermost submodule whose name ends in `last`."""
    names = [name for name, _ in module.named_modules() if name.split(".")[-1] == last]
    return module.get_submodule(min(names, key=lambda name: name.count(".")))


def _sized(module: Any, call: Any, images: Tensor) -> dict[str, bool]:
    """The option that interpolates position embeddings, for another size than the model's."""
    config = getattr(module.config, "vision_config", module.config)
    own = pair(getattr(config, "image_size", tuple(images.shape[-2:])))
    takes = "interpolate_pos_encoding" in inspect.signature(call).parameters
    return {"interpolate_pos_encoding": True} if takes and tuple(images.shape[-2:]) != own else {}


def classify(module: Any, images: Tensor) -> Any:
    """Logits (B, C)."""
    return as_logits(module(pixel_values=images, **_sized(module, module.forward, images)))


def embed_image(module: Any, images: Tensor) -> Any:
    """Image embeddings (B, E), as the model projects them."""
    features = module.get_image_features(
        pixel_values=images, **_sized(module, module.get_image_features, images)
    )
    return features if isinstance(features, Tensor) else features.pooler_output
