"""Rotating masks as the EXIF orientation of their image says.

The tools of COCO and VOC show an image as its pixels are stored, and the annotations are in these
coordinates. `explain` rotates an image upright as its EXIF orientation says, as viewers do, and
models are trained on upright images. So the images of a data set are rotated too, and their masks
with them.
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


def upright_mask(mask: Mask, orientation: int) -> Mask:
    """A mask of the stored pixels on the upright image.

    Args:
        mask: (height, width) of the stored pixels.
        orientation: EXIF's, 1 to 8.
    """
    image = Image.fromarray(mask.astype(np.uint8))
    image.getexif()[ORIENTATION] = orientation
    upright: Mask = np.asarray(ImageOps.exif_transpose(image)) > 0
    return upright


def orientation_of_masks(
    size: tuple[int, int], image: Image.Image, orientation: int, name: str
) -> int:
    """The EXIF orientation to apply to masks so that they lie on an upright image.

    Args:
        size: (height, width) that the data set gives for the image or its mask.
        image: upright.
        orientation: of the pixels in its file.
        name: of the image, for the error.

    Returns:
        `orientation` where masks are on the stored pixels, 1 where they are upright already.

    Raises:
        DatasetError: if the size fits neither.
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
