"""timm's Vision Transformers."""

from gradtoken.models.timm.anatomy import looks_like, read
from gradtoken.models.timm.build import build
from gradtoken.models.timm.labels import count_classes, read_labels, read_prompts
from gradtoken.models.timm.preprocess import read_preprocess

__all__ = [
    "build",
    "count_classes",
    "looks_like",
    "read",
    "read_labels",
    "read_preprocess",
    "read_prompts",
]
