"""gradtoken's methods behind captum's call: `.attribute(inputs, target=…)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.activation import Activation
from gradtoken.attribution import Method
from gradtoken.errors import ModelError, TargetError
from gradtoken.explaining import explain
from gradtoken.models import Model, wrap


class Attribution:
    """A method of gradtoken to be used where captum's attributions are.

    Args:
        model: a `Model`, or a live module that `wrap` takes.
        method: a name from `methods()`, a `Method` class, or a method already made.
        activation: of a live module, as for `wrap`; a `Model` has its own.
        **options: the method's options, such as `preset="sharp"`.

    Raises:
        ModelError: a module that cannot be explained, or an activation for a `Model`.

    Example:
        >>> attribution = gradtoken.captum.Attribution(module, "gae")
        >>> attribution.attribute(inputs, target=281)
    """

    def __init__(
        self,
        model: Model | nn.Module,
        method: str | type[Method] | Method = "gradtoken",
        *,
        activation: Activation | None = None,
        **options: Any,
    ) -> None:
        if isinstance(model, Model) and activation is not None:
            raise ModelError("a Model has its activation already; give it to load(…) or wrap(…).")
        self._model = model if isinstance(model, Model) else wrap(model, activation=activation)
        self._method = method
        self._options = options

    def attribute(
        self,
        inputs: Float[Tensor, "batch 3 height width"],
        target: int | Sequence[int] | Tensor | None = None,
        **unused: Any,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Attributions of the inputs' shape, as captum's image metrics and pictures take them.

        Relevance is laid on the pixels bilinearly and shared by the three channels alike, so that
        their sum is the map.

        Args:
            inputs: preprocessed pictures.
            target: one class for all inputs or one for each; None is the predicted one.

        Raises:
            TargetError: as many targets as inputs are needed; or captum options that mean nothing
                here.
        """
        if unused:
            raise TargetError(
                f"gradtoken's attributions take no {', '.join(unused)}; give options when making "
                "them."
            )
        found = explain(
            self._model, inputs, _targets(target, len(inputs)), method=self._method, **self._options
        )
        maps = found.boxes.grid.enlarge(found.tokens[:, 0]).to(inputs.dtype)
        return maps[:, None].expand(-1, 3, -1, -1) / 3


def _targets(target: Any, count: int) -> list[list[int]] | None:
    if target is None:
        return None
    values = torch.as_tensor(target).flatten().tolist()
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise TargetError(f"{len(values)} targets were given for {count} inputs; give one each.")
    return [[int(value)] for value in values]
