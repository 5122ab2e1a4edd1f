"""Vision Transformers of Hugging Face transformers."""

from gradtoken.models.hf.anatomy import read
from gradtoken.models.hf.build import build
from gradtoken.models.hf.labels import count_classes, read_labels, read_prompts
from gradtoken.models.hf.preprocess import read_preprocess

__all__ = ["build", "count_classes", "read", "read_labels", "read_preprocess", "read_prompts"]
