"""The options of `gradtoken bench` that name fine-tuned models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from gradtoken.cli.console import complain
from gradtoken.errors import MethodError

if TYPE_CHECKING:
    from gradtoken.models import Model


@dataclass(frozen=True)
class TunedOptions:
    """Models that some groups of metrics ask."""

    in_domain_model: Annotated[
        str | None,
        typer.Option(
            help="Weights for --model, fine-tuned with one cell deleted in half of the images, for "
            "idsds; --model demo has its own."
        ),
    ] = None
    f_fidelity_model: Annotated[
        str | None,
        typer.Option(
            help="Weights for --model, fine-tuned with a tenth of the pixels deleted, for "
            "f-fidelity."
        ),
    ] = None

    def load(
        self, model: Model, groups: list[str], size: int | tuple[int, int] | None, *, every: bool
    ) -> dict[str, Model | None]:
        """The groups that can be measured, each with the fine-tuned model that it asks, if any.

        Args:
            model: the model that is explained.
            groups: names of groups of metrics.
            size: (height, width) in pixels that the model was loaded with, or None.
            every: leave out groups without a model, with a line that says so.

        Raises:
            MethodError: a group without a model, unless `every`.
            ModelError: weights that cannot be had or do not fit.
        """
        from gradtoken.bench.in_domain import NEEDS_TUNED, tuned_models

        weights = {"idsds": self.in_domain_model, "f-fidelity": self.f_fidelity_model}
        tuned = tuned_models(model, groups, weights, image_size=size)
        lacking = [name for name in groups if name in NEEDS_TUNED and name not in tuned]
        for group in lacking:
            reason = f"{group} needs {NEEDS_TUNED[group]} (tools/finetune_in_domain.py makes one)."
            if not every:
                raise MethodError(reason)
            complain(f"left out: {reason}")
        return {name: tuned.get(name) for name in groups if name not in lacking}
