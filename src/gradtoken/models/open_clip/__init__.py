"""CLIP models of open_clip."""

from gradtoken.models.open_clip.anatomy import read
from gradtoken.models.open_clip.build import build, names
from gradtoken.models.open_clip.preprocess import (
    count_classes,
    read_labels,
    read_preprocess,
    read_prompts,
)

__all__ = [
    "build",
    "count_classes",
    "names",
    "read",
    "read_labels",
    "read_preprocess",
    "read_prompts",
]
