"""From a file, image or array to the model's input, and the part of the image that it covers."""

from gradtoken.images.load_image import MAX_PIXELS, load_image

__all__ = ["MAX_PIXELS", "load_image"]
