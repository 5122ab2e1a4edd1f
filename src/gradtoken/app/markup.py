"""Small pieces of HTML: escaped text, pictures as data URIs, messages."""

from __future__ import annotations

import base64
import io
from html import escape

import matplotlib as mpl
import numpy as np
from PIL import Image

from gradtoken.explanation import style as display

_TEMPLATE_MARKS = {ord(mark): f"&#{ord(mark)};" for mark in "{}$`\\"}
"""What the page's own templates would read as code."""


def esc(text: object) -> str:
    """Text for HTML, in and outside of attributes, that no template reads as code."""
    return escape(str(text), quote=True).translate(_TEMPLATE_MARKS)


def message(text: str) -> str:
    """What the app has to say."""
    return f'<p class="gt-message" role="status">{esc(text)}</p>' if text else ""


def problem(text: str) -> str:
    """What went wrong, as a sentence that screen readers read out at once."""
    return f'<p class="gt-message gt-problem" role="alert">Not done: {esc(text)}</p>'


def photo_uri(image: Image.Image) -> str:
    """An RGB picture as a data URI."""
    return _uri(image, "JPEG", quality=88)


def heat_uri(image: Image.Image) -> str:
    """Colours with an alpha as a data URI."""
    return _uri(image, "PNG", compress_level=3)


def colour_bar(signed: bool) -> str:
    """The display's colours as a CSS gradient, from 0 (or -1) to 1, as strong as on a map."""
    places = np.linspace(0, 1, 17)
    values = 2 * places - 1 if signed else places
    colours = mpl.colormaps[display.SIGNED_MAP if signed else display.POSITIVE_MAP](places)
    stops = [
        f"rgba({round(r * 255)}, {round(g * 255)}, {round(b * 255)}, {abs(v) ** 0.5:.2f})"
        for (r, g, b, _), v in zip(colours, values, strict=True)
    ]
    return f"linear-gradient(to right, {', '.join(stops)})"


def _uri(image: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{data}"
