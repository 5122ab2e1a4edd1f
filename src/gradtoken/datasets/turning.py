"""Masks that were drawn on the stored pixels of a file, turned upright with its image.

The tools of COCO and VOC show an image as its pixels are stored, and the annotations are in these
coordinates. `explain` turns an image as its EXIF orientation says, as viewers do, and models are
trained on upright images. So that a benchmark explains what `explain` does, its images are turned
too, and their masks with them.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps

from gradtoken.errors import DatasetError
from gradtoken.images.load_image import ORIENTATION

Mask: TypeAlias = Bool[np.ndarray, "height width"]

_ON_ITS_SIDE = range(5, 9)
"""EXIF orientations in which width and height are exchanged."""


def turned(mask: Mask, orientation: int) -> Mask:
    """A mask on stored pixels as one on the upright image.

    Args:
        mask: (height, width) of the stored pixels.
        orientation: EXIF's, 1 to 8.
    """
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.getexif()[ORIENTATION] = orientation
    found: Mask = np.asarray(ImageOps.exif_transpose(picture)) > 0
    return found


def orientation_of_masks(
    size: tuple[int, int], image: Image.Image, orientation: int, name: str
) -> int:
    """By which EXIF orientation masks are to be turned to lie on an upright image.

    Args:
        size: (height, width) that the data set gives for the image or its mask.
        image: upright.
        orientation: of the pixels in its file.
        name: of the image, for the error.

    Returns:
        `orientation` where masks are on the stored pixels, 1 where they are upright already.

    Raises:
        DatasetError: if the size is neither.
    """
    upright = (image.height, image.width)
    stored = upright[::-1] if orientation in _ON_ITS_SIDE else upright
    if size == stored:
        return orientation
    if size == upright:
        return 1
    raise DatasetError(
        f"the data set gives {name} {size[1]}x{size[0]} pixels, and its file has "
        f"{image.width}x{image.height}, so its masks do not lie on it; get the data set's "
        "own files."
    )
