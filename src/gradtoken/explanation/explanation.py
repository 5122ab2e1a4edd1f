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

from gradtoken.errors import ImageError, TargetError
from gradtoken.explanation import style as display
from gradtoken.explanation.evidence import Evidence, evidence_of
from gradtoken.images.boxes import Boxes
from gradtoken.images.crop_box import Box, lay_out
from gradtoken.images.source import Source
from gradtoken.targets import Targets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
        probabilities: (B, K) the probability of each target's class, by the model's activation; NaN
            where the target is no class or the outputs are no probabilities.
        sources: where each picture is from, and the picture.
        boxes: the part of each image that the grid of tokens covers: the model's input, but for
            pixels at its edges that belong to no token.
        about: model, method, options and versions, as plain data.
    """

    tokens: Float[Tensor, "batch targets h w"]
    targets: Targets
    labels: list[list[str]]
    scores: Float[Tensor, "batch targets"]
    probabilities: Float[Tensor, "batch targets"]
    sources: Sequence[Source]
    boxes: Boxes
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
    def evidence(self) -> Evidence:
        """How much in each map speaks for its target, and which have no positive evidence, (B, K).

        A map has none if less than a tenth of its absolute relevance is positive
        (`gradtoken.explanation.evidence`).
        """
        return evidence_of(self.tokens)

    @property
    def relevance(self) -> Float[Tensor, "batch targets height width"]:
        """Signed relevance on the original pictures' pixels; 0 where the model never looked.

        Raises:
            ImageError: if the pictures differ in size; take `explanation[i].relevance` then.
        """
        sizes = {source.size for source in self.sources}
        if len(sizes) > 1:
            raise ImageError(
                f"the pictures have {len(sizes)} different sizes, so their maps are no one tensor; "
                "take explanation[i].relevance, or .tokens."
            )
        return torch.stack(
            [
                lay_out(tokens, box, source.size)
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
            style: display choices; `gradtoken.explanation.style` states the defaults.
        """
        style = style or display.Style()
        picture, values, box = self.laid_out(k, image=image, style=style)
        tokens = self.tokens[image, self.position(k, image)]
        return display.overlay(picture, values, box, display.fitted_to(tokens, style))

    def laid_out(
        self, k: int | str = 0, *, image: int = 0, style: display.Style | None = None
    ) -> tuple[Image.Image, np.ndarray[Any, Any], Box]:
        """One target's map on its picture's pixels, at most `display.MAX_SIDE` of them a side.

        Args:
            k: the target, by position or label.
            image: which image of the batch.
            style: for its smoothing.

        Returns:
            The picture, the signed map (height, width) on it, and the box that the model saw.
        """
        picture, box = display.fitted(self.sources[image].picture, self.boxes[image])
        tokens = self.tokens[image, self.position(k, image)][None]
        tokens = display.smoothed(tokens, style or display.Style())
        return picture, lay_out(tokens, box, picture.size)[0].detach().cpu().numpy(), box

    def figure(
        self,
        *,
        targets: Sequence[int | str] | None = None,
        style: display.Style | None = None,
        shared_scale: bool = False,
        picture: bool = True,
        colorbar: bool = True,
        columns: int | None = None,
        width: float | None = None,
    ) -> Figure:
        """A matplotlib figure: for each image the picture, then each target's overlay.

        It is no part of pyplot's state; `figure.savefig("figure.pdf")` (or .svg, .png) writes it,
        with text as text.

        Args:
            targets: which ones to draw, by position or label; None draws all.
            style: display choices; `gradtoken.explanation.style` states the defaults.
            shared_scale: one colour scale for all targets of an image, so that their strengths can
                be compared; otherwise each map has its own largest value in full colour.
            picture: begin with the picture itself.
            colorbar: what the colours mean, at the right.
            columns: panels in a row; None is as many as there are, at most 8.
            width: of the whole figure, in inches; None is 2.4 for each column.
        """
        from gradtoken.explanation.figures import Look, summary

        look = Look(style or display.Style(), shared_scale, picture, colorbar)
        return summary(self, targets, look, columns=columns, width=width)

    def plot(
        self,
        axes: Any = None,
        *,
        image: int = 0,
        targets: Sequence[int | str] | None = None,
        style: display.Style | None = None,
        shared_scale: bool = False,
        picture: bool = False,
        colorbar: bool = True,
    ) -> list[Axes]:
        """Draw one image's overlays into axes of yours, a target each.

        Args:
            axes: a matplotlib axes, or a sequence or array of as many as there are panels; None
                makes a figure for them (`axes[0].figure`).
            image: which image of the batch.
            targets: which ones to draw, by position or label; None draws all.
            style: display choices; `gradtoken.explanation.style` states the defaults.
            shared_scale: one colour scale for all targets, as for `figure`.
            picture: begin with the picture itself.
            colorbar: what the colours mean, at the right.

        Returns:
            The axes drawn into.

        Raises:
            TargetError: if there are more or fewer axes than panels.

        Example:
            >>> figure, axes = plt.subplots(1, 2, layout="constrained")
            >>> explanation.plot(axes, targets=["tabby", "tiger cat"], shared_scale=True)
        """
        from gradtoken.explanation.figures import Look, plot

        look = Look(style or display.Style(), shared_scale, picture, colorbar)
        return plot(self, axes, image, targets, look)

    def save(self, directory: str | Path, *, style: display.Style | None = None) -> list[Path]:
        """Write overlays, a summary figure, raw tokens and a manifest.

        One image goes into `directory`, several into one folder each below it. Nothing is left
        half-written: files appear under their names only when complete, the manifest last.

        Returns:
            The folders written.

        Raises:
            OutputError: if the folder cannot be written to.
        """
        from gradtoken.explanation.saving import save

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
                        "evidence": evidence[k].to_dict(),
                    }
                    for k, (target, label, score, probability) in enumerate(zip(*row, strict=True))
                ],
            }
            for source, box, evidence, *row in zip(
                self.sources,
                self.boxes,
                map(evidence_of, self.tokens),
                self.targets.rows,
                self.labels,
                self.scores,
                self.probabilities,
                strict=True,
            )
        ]

    def position(self, k: int | str, image: int = 0) -> int:
        """Where a target stands among those of an image, by position or label.

        Raises:
            TargetError: if there is none.
        """
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
