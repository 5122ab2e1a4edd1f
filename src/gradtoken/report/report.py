"""Writing a report image by image, whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gradtoken import atomic
from gradtoken.errors import OutputError
from gradtoken.explanation.explanation import Explanation
from gradtoken.explanation.style import Style
from gradtoken.report.entry import colour_maps, entry_of

_ADVICE = "nothing was left half-written"


class Report:
    """A self-contained HTML page about many images.

    It is written image by image, so that memory does not grow with their number, and under a
    temporary name until it is complete. Images are scaled to 360 pixels (longer side) and maps are
    stored as tokens, which the page colours itself.

    Args:
        path: of the file, which is created when the `with` block ends without an error.
        title: of the page.
        style: initial display choices; the reader can change them in the page.

    Raises:
        OutputError: if it cannot be written.

    Example:
        >>> with Report("report.html", title="My model") as report:
        ...     for image in images:
        ...         report.add(gradtoken.explain(model, image, top_k=3))
    """

    def __init__(
        self, path: str | os.PathLike[str], *, title: str = "gradtoken", style: Style | None = None
    ) -> None:
        self.path = Path(path)
        self._title, self._style = title, style or Style()
        self._open = ExitStack()
        self._file: IO[str] | None = None
        self._count = 0
        self._failed: list[tuple[str, str]] = []

    def __enter__(self) -> Report:
        if self.path.is_dir():
            raise OutputError(f"{self.path} is a folder; name a file for the report.")
        with ExitStack() as opening:
            part = opening.enter_context(atomic.writing(self.path, advice=_ADVICE))
            self._file = opening.enter_context(
                part.open("w", encoding="utf-8", errors="backslashreplace", newline="\n")
            )
            self._write("head.html", style=self._style, maps=colour_maps())
            self._open = opening.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._open.__exit__(kind, error, trace)
            return
        with self._open:
            self._write("foot.html", failed=self._failed, count=self._count)

    def add(self, explanation: Explanation) -> None:
        """Write the images of an explanation.

        Raises:
            OutputError: if the file cannot be written, for example on a full disk.
        """
        for item in explanation:
            self._count += 1
            self._write("entry.html", entry=entry_of(item), number=self._count)

    def fail(self, name: str, reason: str) -> None:
        """List an image that could not be explained, and why, at the end of the report."""
        self._failed.append((name, reason))

    def extend(self, explanations: Iterable[Explanation]) -> None:
        """`add` each of them."""
        for explanation in explanations:
            self.add(explanation)

    def _write(self, template: str, **values: Any) -> None:
        if self._file is None:
            raise OutputError("a report is written inside its with block.")
        text = _pages().get_template(template).render(title=self._title, **_parts(), **values)
        try:
            self._file.write(text + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {atomic.reason(error)}; {_ADVICE}."
            ) from None


@cache
def _pages() -> Environment:
    return Environment(
        loader=PackageLoader("gradtoken.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _parts() -> dict[str, Any]:
    """Style and script, and their digests for the page's content security policy."""
    parts: dict[str, Any] = {}
    for name, file in (("css", "report.css"), ("script", "report.js")):
        text = (files("gradtoken.report") / "page" / file).read_text("utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        parts |= {name: Markup(text), f"{name}_digest": digest}  # noqa: S704
    return parts
