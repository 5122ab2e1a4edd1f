"""The preprocessing, labels and prompts of an open_clip model."""

from __future__ import annotations

from typing import Any

import open_clip
from open_clip.transform import PreprocessCfg, image_transform_v2

from gradtoken.images.preprocess import Preprocess
from gradtoken.models.open_clip.anatomy import is_image_tower
from gradtoken.models.open_clip.text import NoText, OpenClipPrompts
from gradtoken.targets.labels import Labels
from gradtoken.targets.prompts import Prompts


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
    return NoText(module) if is_image_tower(module) else OpenClipPrompts(module, tokenizer)
