"""The result of an explanation: signed relevance per image, target and token, and its pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gradtoken import display
from gradtoken.errors import ImageError, TargetError
from gradtoken.geometry import Box, lay_out
from gradtoken.sources import Source
from gradtoken.targets import Targets

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Explanation:
    """Relevance of B images for K targets each.

    Index it to get single images: `explanation[0]`.

    Attributes:
        tokens: (B, K, h, w) raw signed relevance of the spatial tokens, float32.
        targets: what was explained, B rows of K.
        labels: their names, B rows of K.
        scores: (B, K) each target's scalar y.
        probabilities: (B, K) softmax probability of each target's class; NaN where it is none.
        sources: where each picture is from, and the picture.
        boxes: the part of each original that was the model's input.
        about: model, method, options and versions, as plain data.
    """

    tokens: Float[Tensor, "batch targets h w"]
    targets: Targets
    labels: list[list[str]]
    scores: Float[Tensor, "batch targets"]
    probabilities: Float[Tensor, "batch targets"]
    sources: Sequence[Source]
    boxes: Sequence[Box]
    about: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> Explanation:
        one = slice(index, index + 1) if index != -1 else slice(-1, None)
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of an explanation of {len(self)} images")
        return replace(
            self,
            tokens=self.tokens[one],
            targets=Targets(self.targets.rows[one]),
            labels=self.labels[one],
            scores=self.scores[one],
            probabilities=self.probabilities[one],
            sources=self.sources[one],
            boxes=self.boxes[one],
        )

    def __iter__(self) -> Iterator[Explanation]:
        return (self[index] for index in range(len(self)))

    @property
    def relevance(self) -> Float[Tensor, "batch targets height width"]:
        """Signed relevance on the original pictures' pixels; 0 where the model never looked.

        Raises:
            ImageError: if the pictures differ in size; take `explanation[i].relevance` then.
        """
        sizes = {source.picture.size for source in self.sources}
        if len(sizes) > 1:
            raise ImageError(
                f"the pictures have {len(sizes)} different sizes, so their maps are no one tensor; "
                "take explanation[i].relevance, or .tokens."
            )
        return torch.stack(
            [
                lay_out(tokens, box, source.picture.size)
                for tokens, box, source in zip(self.tokens, self.boxes, self.sources, strict=True)
            ]
        )

    def overlay(
        self, k: int | str = 0, *, image: int = 0, style: display.Style | None = None
    ) -> Image.Image:
        """One target's map in colour over its picture.

        Args:
            k: the target, by position or label.
            image: which image of the batch.
            style: display choices; `gradtoken.display` states the defaults.
        """
        source, box = self.sources[image], self.boxes[image]
        picture = source.picture
        factor = display.MAX_SIDE / max(picture.size)
        if factor < 1:
            size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
            box = Box(*(edge * size[i % 2] / picture.size[i % 2] for i, edge in enumerate(box)))
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        style = style or display.Style()
        tokens = display.smoothed(self.tokens[image, self._position(k, image)][None], style)
        values = lay_out(tokens, box, picture.size)[0].detach().cpu().numpy()
        return display.overlay(picture, values, box, style)

    def figure(self, *, style: display.Style | None = None) -> Figure:
        """A matplotlib figure: a row per image, the picture first, then each target's overlay."""
        from gradtoken.figures import summary

        return summary(self, style or display.Style())

    def save(self, directory: str | Path, *, style: display.Style | None = None) -> list[Path]:
        """Write overlays, a summary figure, raw tokens and a manifest.

        One image goes into `directory`, several into one folder each below it. Nothing is left
        half-written: files appear under their names only when complete, the manifest last.

        Returns:
            The folders written.

        Raises:
            OutputError: if the folder cannot be written to.
        """
        from gradtoken.saving import save

        return save(self, Path(directory), style or display.Style())

    def to_dict(self) -> list[dict[str, Any]]:
        """One record per image, without the maps: source, targets, scores, grid, and `about`."""
        height, width = self.tokens.shape[-2:]
        return [
            {
                **self.about,
                "input": source.to_dict(),
                "grid": [height, width],
                "box": [round(edge, 3) for edge in box],
                "targets": [
                    {
                        **target.to_dict(),
                        "label": label,
                        "score": float(score),
                        "probability": None if torch.isnan(probability) else float(probability),
                    }
                    for target, label, score, probability in zip(*row, strict=True)
                ],
            }
            for source, box, *row in zip(
                self.sources,
                self.boxes,
                self.targets.rows,
                self.labels,
                self.scores,
                self.probabilities,
                strict=True,
            )
        ]

    def _position(self, k: int | str, image: int) -> int:
        labels = self.labels[image]
        if isinstance(k, str):
            if k not in labels:
                raise TargetError(f"{k!r} is not among the explained targets: {', '.join(labels)}.")
            return labels.index(k)
        if not -len(labels) <= k < len(labels):
            raise TargetError(f"target {k} is out of range; {len(labels)} were explained.")
        return k

    def _repr_png_(self) -> bytes:
        figure = self.figure()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        from base64 import b64encode

        data = b64encode(self._repr_png_()).decode()
        return f'<img alt="{self._alt()}" src="data:image/png;base64,{data}">'

    def _alt(self) -> str:
        from html import escape

        names = ", ".join(dict.fromkeys(label for row in self.labels for label in row))
        return escape(f"Relevance maps for {names}", quote=True)


def token_array(explanation: Explanation) -> np.ndarray[Any, Any]:
    """The raw tokens of an explanation as a float32 array (B, K, h, w)."""
    values: np.ndarray[Any, Any] = explanation.tokens.detach().cpu().numpy()
    return values
