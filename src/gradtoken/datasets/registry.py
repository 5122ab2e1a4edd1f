"""Data sets by name, as on the command line."""

from __future__ import annotations

from collections.abc import Callable

from gradtoken.datasets.coco import open_coco
from gradtoken.datasets.image_folder import ImageFolder
from gradtoken.datasets.imagenet_seg import ImageNetSegmentation
from gradtoken.datasets.sample import Samples
from gradtoken.datasets.scenes.samples import SceneSamples
from gradtoken.datasets.scenes.scenes import Scenes
from gradtoken.datasets.voc import VOC
from gradtoken.errors import DatasetError, did_you_mean

KINDS: dict[str, Callable[[str], Samples]] = {
    "voc": VOC,
    "coco": open_coco,
    "imagenet-seg": ImageNetSegmentation,
    "folder": ImageFolder,
}


def open_samples(spec: str) -> Samples:
    """A data set by name.

    Args:
        spec: "scenes", "scenes:SEED", "voc:DIR", "coco:DIR", "coco:IMAGES,JSON" (the
            folder of images and the list of instances), "imagenet-seg:FILE" or "folder:DIR".
            "scenes" has the seed 0.

    Raises:
        DatasetError: an unknown name, or missing files.
    """
    kind, _, path = spec.partition(":")
    if spec == "scenes" or (kind == "scenes" and path.isdecimal()):
        return SceneSamples(Scenes("test", objects=(2, 3), seed=int(path or 0)))
    if kind not in KINDS or not path:
        near = did_you_mean(kind, ["scenes", *KINDS]) if kind not in KINDS else ""
        usage = (
            "; use scenes, scenes:SEED, voc:DIR, coco:DIR, coco:IMAGES,JSON, imagenet-seg:FILE or "
            "folder:DIR."
        )
        raise DatasetError(f"no data set is named {spec!r}{near or usage}")
    return KINDS[kind](path)
