"""Maps that fit their images."""

from __future__ import annotations

from gradtoken.errors import MethodError
from gradtoken.metrics.pixel_replacement import Images, Maps, check_finite


def check_maps(images: Images, maps: Maps) -> None:
    """Check that there is a map on the pixels of each image.

    Args:
        images: preprocessed, (B, C, H, W).
        maps: relevance on pixels, (B, H, W).

    Raises:
        MethodError: maps of another number or size, or NaN or infinite relevance.
    """
    if maps.shape != (len(images), *images.shape[2:]):
        raise MethodError(
            f"maps of shape {tuple(maps.shape)} do not fit images of shape {tuple(images.shape)}; "
            "give a map per image, brought to its size by to_pixels."
        )
    check_finite(maps)
