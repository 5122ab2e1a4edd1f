"""Equations of the documentation as MathML, made when it is built: no script and no network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_MARKED = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, **unused: Any) -> str:
    """Replace what pymdownx.arithmatex has marked."""
    return _MARKED.sub(_as_mathml, content)


def _as_mathml(match: re.Match[str]) -> str:
    block = match["tag"] == "div"
    math = convert(html.unescape(match["tex"]), display="block" if block else "inline")
    return f'<div class="equation">{math}</div>' if block else math
