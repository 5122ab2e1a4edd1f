"""Images with annotations: endless procedural scenes, and readers of the field's data sets."""

from gradtoken.datasets.coco import COCO
from gradtoken.datasets.image_folder import ImageFolder
from gradtoken.datasets.imagenet_seg import ImageNetSegmentation
from gradtoken.datasets.registry import open_samples
from gradtoken.datasets.sample import Sample, Samples
from gradtoken.datasets.scenes.samples import SceneSamples
from gradtoken.datasets.scenes.scenes import Scene, Scenes
from gradtoken.datasets.voc import VOC

__all__ = [
    "COCO",
    "VOC",
    "ImageFolder",
    "ImageNetSegmentation",
    "Sample",
    "Samples",
    "Scene",
    "SceneSamples",
    "Scenes",
    "open_samples",
]
