"""Preprocessing by the image processors of transformers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gradtoken.errors import ModelError, first_line
from gradtoken.images.preprocess import Preprocess
from gradtoken.models.families import Size, pair
from gradtoken.models.hf.anatomy import classify, compares_text, embed_image
from gradtoken.models.hub import no_retries
from gradtoken.models.input_layer import count_channels
from gradtoken.models.timm.preprocess import read_preprocess as read_timm


def read_preprocess(module: Any) -> Preprocess:
    """The image processor of a model's own files, or its architecture's usual one."""
    if hasattr(module, "timm_model"):
        pretrained = getattr(module.config, "pretrained_cfg", None)
        return read_timm(module.timm_model, pretrained)
    return _preprocess(_processor(module))


def _processor(module: Any) -> Any:
    from transformers import AutoImageProcessor, Dinov2Config
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    config = getattr(module.config, "vision_config", module.config)
    where = getattr(module.config, "_name_or_path", "")
    if where:
        with suppress(OSError, ValueError), no_retries():
            return AutoImageProcessor.from_pretrained(where, trust_remote_code=False)
    supported = type(module.config) in IMAGE_PROCESSOR_MAPPING
    kinds = IMAGE_PROCESSOR_MAPPING[type(module.config) if supported else Dinov2Config]
    options = list(kinds.values()) if isinstance(kinds, dict) else list(kinds)
    processor = next(kind for kind in options if kind is not None)()
    _bring_to(processor, pair(config.image_size))
    return processor


def _bring_to(processor: Any, size: Size) -> None:
    """Make a processor crop or resize to a size; a crop is of the longer side's square.

    Processors whose size is not that of the shortest edge resize to a square before they crop.
    """
    sides = {"height": size[0], "width": size[1]}
    if getattr(processor, "do_center_crop", False):
        square = {"height": max(size), "width": max(size)}
        crops = "shortest_edge" in processor.size
        processor.size = {"shortest_edge": max(size)} if crops else square
    else:
        processor.size = sides
    processor.crop_size = sides


def resized_preprocess(module: Any, size: Size, name: str) -> Preprocess:
    """Preprocessing to another size, where a forward shows that the model takes it."""
    forward = embed_image if compares_text(module) else classify
    try:
        with torch.no_grad():
            blank = torch.zeros(1, count_channels(module), *size, dtype=module.dtype)
            forward(module.eval(), blank)
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"hf/{name} ({type(module).__name__}) takes no images of {size[0]}x{size[1]} pixels "
            f"({first_line(error)}); leave out image_size."
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
    pixels: Tensor = processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    return pixels
