"""Checks that a data set's samples are consistent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gradtoken.datasets.sample import Sample
from gradtoken.errors import DatasetError
from gradtoken.images.load_image import ORIENTATION


def checked_samples(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples, each with a unique id and consistent parts.

    Raises:
        DatasetError: two samples with one id, an image that is not upright RGB, masks of another
            size than the image, or another number of masks than names.
    """
    ids = set()
    for sample in samples:
        if sample.id in ids:
            raise DatasetError(
                f"two images have the id {sample.id!r}, so their records would be mixed; give "
                "each its own."
            )
        ids.add(sample.id)
        _check(sample)
        yield sample


def _check(sample: Sample) -> None:
    image = sample.image
    if image.mode != "RGB" or image.getexif().get(ORIENTATION, 1) != 1:
        raise DatasetError(
            f"the image of {sample.id!r} is {image.mode} or not upright; read it with "
            "gradtoken.images.load_image, and turn its masks with it."
        )
    size = image.size[::-1]
    for what, mask in (("masks", sample.masks), ("pixels to ignore", sample.ignore)):
        if mask is not None and mask.shape[-2:] != size:
            raise DatasetError(
                f"the {what} of {sample.id!r} are of {mask.shape[-2:]} pixels, its image of "
                f"{size}; give masks of the image's size."
            )
    if sample.masks is not None and len(sample.masks) != (
        1 if sample.unnamed else len(sample.names)
    ):
        raise DatasetError(
            f"{sample.id!r} has {len(sample.masks)} masks and {len(sample.names)} names; give a "
            "name for each mask."
        )
