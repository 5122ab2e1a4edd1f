"""The result of an explanation: signed relevance per image, target and token."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gradtoken.deprecation import renamed_parameters
from gradtoken.errors import ImageError, TargetError
from gradtoken.explanation import style as display
from gradtoken.explanation.evidence import Evidence, evidence_of
from gradtoken.images.box import Box
from gradtoken.images.patch_grid import lay_out
from gradtoken.images.source import Boxes, Source
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
        targets: B rows of K.
        labels: the names of the targets, B rows of K.
        scores: (B, K) the scalar y of each target.
        probabilities: (B, K) the probability of each target's class, by the model's activation; NaN
            where the target is no class or the outputs are no probabilities.
        sources: the images (`source.image`) and their origins.
        boxes: the part of each image that the grid of tokens covers: the model's input, except
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
        item = slice(index, index + 1) if index != -1 else slice(-1, None)
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of an explanation of {len(self)} images")
        return replace(
            self,
            tokens=self.tokens[item],
            targets=Targets(self.targets.rows[item]),
            labels=self.labels[item],
            scores=self.scores[item],
            probabilities=self.probabilities[item],
            sources=self.sources[item],
            boxes=self.boxes[item],
        )

    def __iter__(self) -> Iterator[Explanation]:
        return (self[index] for index in range(len(self)))

    @property
    def evidence(self) -> Evidence:
        """The positive evidence in each map, and which maps have none, (B, K).

        A map has none if less than a tenth of its absolute relevance is positive
        (`gradtoken.explanation.evidence`).
        """
        return evidence_of(self.tokens)

    @property
    def relevance(self) -> Float[Tensor, "batch targets height width"]:
        """Signed relevance on the pixels of the original images; 0 outside of the model's input.

        Raises:
            ImageError: the images differ in size; take `explanation[i].relevance` then.
        """
        sizes = {source.size for source in self.sources}
        if len(sizes) > 1:
            raise ImageError(
                f"the images have {len(sizes)} different sizes, so their maps are no one tensor; "
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
        """A target's map in colour over its image.

        Args:
            k: the target, by position or label.
            image: the position of the image in the batch.
            style: display choices; `gradtoken.explanation.style` states the defaults.
        """
        style = style or display.Style()
        shown, values, box = self.laid_out(k, image=image, style=style)
        tokens = self.tokens[image, self.position(k, image)]
        return display.overlay(shown, values, box, display.fitted_to(tokens, style))

    def laid_out(
        self, k: int | str = 0, *, image: int = 0, style: display.Style | None = None
    ) -> tuple[Image.Image, np.ndarray[Any, Any], Box]:
        """A target's map on the pixels of its image, at most `display.MAX_SIDE` a side.

        Args:
            k: the target, by position or label.
            image: the position of the image in the batch.
            style: for its smoothing.

        Returns:
            The image, the signed map (height, width) on it, and the box of the model's input.
        """
        shown, box = display.fitted(self.sources[image].image, self.boxes[image])
        tokens = self.tokens[image, self.position(k, image)][None]
        tokens = display.smoothed(tokens, style or display.Style())
        return shown, lay_out(tokens, box, shown.size)[0].detach().cpu().numpy(), box

    @renamed_parameters(picture="show_image")
    def figure(
        self,
        *,
        targets: Sequence[int | str] | None = None,
        style: display.Style | None = None,
        shared_scale: bool = False,
        show_image: bool = True,
        colorbar: bool = True,
        columns: int | None = None,
        width: float | None = None,
    ) -> Figure:
        """A matplotlib figure: for each image the image itself, then each target's overlay.

        It is independent of pyplot's state. `figure.savefig("figure.pdf")` (or .svg, .png) writes
        it, with text as text.

        Args:
            targets: the targets to draw, by position or label; None draws all.
            style: display choices; `gradtoken.explanation.style` states the defaults.
            shared_scale: use one colour scale for all targets of an image, so that their strengths
                can be compared; otherwise each map has its own largest value in full colour.
            show_image: begin with the image itself.
            colorbar: draw a colour bar at the right.
            columns: panels in a row; None is as many as there are, at most 8.
            width: of the whole figure, in inches; None is 2.4 for each column.
        """
        from gradtoken.explanation.figures import Look, summary

        look = Look(style or display.Style(), shared_scale, show_image, colorbar)
        return summary(self, targets, look, columns=columns, width=width)

    @renamed_parameters(picture="show_image")
    def plot(
        self,
        axes: Any = None,
        *,
        image: int = 0,
        targets: Sequence[int | str] | None = None,
        style: display.Style | None = None,
        shared_scale: bool = False,
        show_image: bool = False,
        colorbar: bool = True,
    ) -> list[Axes]:
        """Draw the overlays of an image into existing axes, one for each target.

        Args:
            axes: a matplotlib axes, or a sequence or array of as many as there are panels; None
                makes a figure for them (`axes[0].figure`).
            image: the position of the image in the batch.
            targets: the targets to draw, by position or label; None draws all.
            style: display choices; `gradtoken.explanation.style` states the defaults.
            shared_scale: use one colour scale for all targets, as for `figure`.
            show_image: begin with the image itself.
            colorbar: draw a colour bar at the right.

        Returns:
            The axes drawn into.

        Raises:
            TargetError: there are more or fewer axes than panels.

        Example:
            >>> figure, axes = plt.subplots(1, 2, layout="constrained")
            >>> explanation.plot(axes, targets=["tabby", "tiger cat"], shared_scale=True)
        """
        from gradtoken.explanation.figures import Look, plot

        look = Look(style or display.Style(), shared_scale, show_image, colorbar)
        return plot(self, axes, image, targets, look)

    def save(self, directory: str | Path, *, style: display.Style | None = None) -> list[Path]:
        """Write overlays, a summary figure, raw tokens and a manifest.

        One image goes into `directory`, several into a folder each below it. Files appear under
        their names only when complete, the manifest last.

        Returns:
            The folders written.

        Raises:
            OutputError: the folder cannot be written to.
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
        """The position of a target among those of an image.

        Args:
            k: its position or label.
            image: the position of the image in the batch.

        Raises:
            TargetError: there is no such target.
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
        from gradtoken.explanation.figures import png_bytes

        return png_bytes(self.figure())

    def _repr_html_(self) -> str:
        names = ", ".join(dict.fromkeys(label for row in self.labels for label in row))
        alt = escape(f"Relevance maps for {names}", quote=True)
        data = b64encode(self._repr_png_()).decode()
        return f'<img alt="{alt}" src="data:image/png;base64,{data}">'
