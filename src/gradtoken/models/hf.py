"""Hugging Face transformers: reading an unmodified `PreTrainedModel`, and building one by name.

Module paths differ between transformers 4 and 5, so blocks are found by their number and kind, not
by path.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from gradtoken.errors import ModelError, did_you_mean
from gradtoken.images.preprocess import Preprocess
from gradtoken.models import timm as timm_family
from gradtoken.models.entry import count_channels
from gradtoken.models.families import Found, Size
from gradtoken.models.hf_text import HFPrompts
from gradtoken.models.hub import no_retries
from gradtoken.models.layout import TokenLayout
from gradtoken.tap.anatomy import Anatomy, Pool, as_given
from gradtoken.tap.logits import as_logits
from gradtoken.targets.labels import Labels

_CLASS_TOKEN = ("vit", "deit", "vit_msn")
_CLASS_AND_MEAN = ("dinov2", "dinov2_with_registers")
_BEIT = ("beit", "data2vec-vision")
_WINDOWED = ("swin", "swinv2", "hiera")
_TEXT = ("clip", "siglip")
_KNOWN = (*_CLASS_TOKEN, *_CLASS_AND_MEAN, *_BEIT, "ijepa", *_TEXT, *_WINDOWED)


def read(module: Any, name: str) -> tuple[Anatomy, TokenLayout]:
    """Where things happen in a transformers model, and which of its tokens are what.

    Raises:
        ModelError: an architecture that is not known, or one without a head.
    """
    kind = module.config.model_type
    if kind == "timm_wrapper" and _classifies_by_timm(module):
        anatomy, layout = timm_family.read(module.timm_model, name)
        return replace(anatomy, forward=_classify), layout
    if kind not in _KNOWN or not (_classifies(module) or _compares(module)):
        raise ModelError(
            f"{name} ({type(module).__name__}) is not supported: its readout is not known; use "
            f"AutoModelForImageClassification of {', '.join(_KNOWN)}, or CLIPModel or SiglipModel."
        )
    if kind in _WINDOWED:
        return _last_stage(module, kind)
    vision = getattr(module, "vision_model", module)
    config = getattr(module.config, "vision_config", module.config)
    blocks = _blocks(vision, config.num_hidden_layers, name)
    forward = _embed_image if _compares(module) else _classify
    make = partial(Anatomy, blocks=blocks, step=as_given, forward=forward)
    patch = _pair(config.patch_size)
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
        Anatomy("mean of the last stage", (), pool=pool, forward=_classify),
        TokenLayout(patch=None, prefix=0, readout=(), pool=0),
    )


def _reroll(encoder: Any, features: Tensor) -> Tensor:
    """Hiera's tokens in the order of rows and columns."""
    stage = len(encoder.stages) - 1
    return encoder.reroll(features, stage_idx=stage, bool_masked_pos=None).flatten(1, 2)


def _classifies(module: Any) -> bool:
    return any(hasattr(module, head) for head in ("classifier", "cls_classifier"))


def _classifies_by_timm(module: Any) -> bool:
    return hasattr(module, "timm_model") and count_classes(module) > 0


def _compares(module: Any) -> bool:
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


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _sized(module: Any, call: Any, images: Tensor) -> dict[str, bool]:
    """Ask for interpolated position embeddings where the input has another size than the model."""
    config = getattr(module.config, "vision_config", module.config)
    own = _pair(getattr(config, "image_size", tuple(images.shape[-2:])))
    takes = "interpolate_pos_encoding" in inspect.signature(call).parameters
    return {"interpolate_pos_encoding": True} if takes and tuple(images.shape[-2:]) != own else {}


def _classify(module: Any, images: Tensor) -> Any:
    """Logits (B, C)."""
    return as_logits(module(pixel_values=images, **_sized(module, module.forward, images)))


def _embed_image(module: Any, images: Tensor) -> Any:
    """Image embeddings (B, E), as the model projects them."""
    found = module.get_image_features(
        pixel_values=images, **_sized(module, module.get_image_features, images)
    )
    return found if isinstance(found, Tensor) else found.pooler_output


def read_preprocess(module: Any) -> Preprocess:
    """The image processor of a model's own files, or its architecture's usual one."""
    if hasattr(module, "timm_model"):
        told = getattr(module.config, "pretrained_cfg", None)
        return timm_family.read_preprocess(module.timm_model, told)
    return _preprocess(_processor(module))


def _processor(module: Any) -> Any:
    from transformers import AutoImageProcessor, Dinov2Config
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    config = getattr(module.config, "vision_config", module.config)
    where = getattr(module.config, "_name_or_path", "")
    if where:
        with suppress(OSError, ValueError), no_retries():
            return AutoImageProcessor.from_pretrained(where, trust_remote_code=False)
    known = type(module.config) in IMAGE_PROCESSOR_MAPPING
    kinds = IMAGE_PROCESSOR_MAPPING[type(module.config) if known else Dinov2Config]
    options = list(kinds.values()) if isinstance(kinds, dict) else list(kinds)
    processor = next(kind for kind in options if kind is not None)()
    _bring_to(processor, _pair(config.image_size))
    return processor


def _bring_to(processor: Any, size: Size) -> None:
    """Make a processor crop or squash to a size; a crop is of the longer side's square.

    Some processors squash before they crop: those whose size is not that of the shortest edge.
    """
    sides = {"height": size[0], "width": size[1]}
    if getattr(processor, "do_center_crop", False):
        square = {"height": max(size), "width": max(size)}
        crops = "shortest_edge" in processor.size
        processor.size = {"shortest_edge": max(size)} if crops else square
    else:
        processor.size = sides
    processor.crop_size = sides


def _resized(module: Any, size: Size, name: str) -> Preprocess:
    """Preprocessing to another size, where a forward shows that the model takes it."""
    forward = _embed_image if _compares(module) else _classify
    try:
        with torch.no_grad():
            blank = torch.zeros(1, count_channels(module), *size, dtype=module.dtype)
            forward(module.eval(), blank)
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"hf/{name} ({type(module).__name__}) takes no pictures of {size[0]}x{size[1]} pixels "
            f"({_first(error)}); leave out image_size."
        ) from None
    processor = _processor(module)
    _bring_to(processor, size)
    return _preprocess(processor)


def _preprocess(processor: Any) -> Preprocess:
    mean, std = _of_rgb(processor.image_mean), _of_rgb(processor.image_std)
    if (list(processor.image_mean), list(processor.image_std)) != (list(mean), list(std)):
        processor = copy.deepcopy(processor)
        processor.image_mean, processor.image_std = list(mean), list(std)
    return Preprocess(partial(_pixels, processor), mean=mean, std=std)


def _of_rgb(values: Sequence[float]) -> tuple[float, ...]:
    """A processor's normalisation for RGB images, where it is for other channels."""
    return tuple(values) if len(values) == 3 else (values[0],) * 3


def _pixels(processor: Any, image: Image.Image) -> Tensor:
    found: Tensor = processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    return found


def count_classes(module: Any) -> int:
    """How many classes the head has."""
    return int(module.config.num_labels)


def read_labels(module: Any, classes: int) -> Labels:
    """The names in the model's config."""
    names = module.config.id2label or {}
    return Labels([names.get(index, f"class {index}") for index in range(classes)])


def read_prompts(module: Any, tokenizer: Any = None) -> HFPrompts | None:
    """The text side, where there is one, with a tokenizer or the one beside the model's files."""
    return HFPrompts(module, tokenizer) if _compares(module) else None


def build(
    name: str, *, pretrained: bool, state: Mapping[str, Tensor] | None, size: Size | None
) -> Found:
    """A model by hub id or local folder; without weights also by model type ("vit").

    Raises:
        ModelError: not to be had, not to be built, or of one size only.
    """
    import transformers
    from transformers import CONFIG_MAPPING, AutoConfig

    try:
        if not pretrained and name in CONFIG_MAPPING:
            config = AutoConfig.for_model(name)
        else:
            with no_retries():
                config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"hf/{name} brings code of its own, which gradtoken does not run; if you trust it, "
                "load it with transformers and give the module to wrap(…)."
            ) from None
        hint = did_you_mean(name, _KNOWN) if "/" not in name else ""
        raise ModelError(
            f"hf/{name} cannot be had: it is no local folder with a config.json, not in the cache "
            f"and cannot be downloaded{hint or '; check the id or the connection.'} "
            f"({_first(error)})"
        ) from None
    kinds = config.architectures = config.architectures or []
    compares = config.model_type in _TEXT and not any("ImageClassification" in k for k in kinds)
    auto: Any = transformers.AutoModel if compares else transformers.AutoModelForImageClassification
    for kind in kinds:
        if kind.endswith("WithTeacher"):
            auto = getattr(transformers, kind)
    try:
        if not pretrained:
            make = getattr(auto, "from_config", None) or auto._from_config
            module: nn.Module = make(config)
        else:
            with no_retries():
                module = auto.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"transformers cannot make a model of hf/{name}: {_first(error)}"
        ) from None
    return Found(module, None if size is None else _resized(module, size, name))


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
