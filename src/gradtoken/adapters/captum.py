"""gradtoken's methods with captum's interface: `.attribute(inputs, target=…)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.attribution import Method
from gradtoken.errors import ImageError, ModelError, TargetError
from gradtoken.explaining import explain
from gradtoken.models import Model, wrap
from gradtoken.targets.activation import Activation

Pixels: TypeAlias = Float[Tensor, "batch channels height width"]

P = ParamSpec("P")
R = TypeVar("R")


def _wrapped(method: Callable[P, R]) -> Callable[P, R]:
    """Add `__wrapped__`, which captum's NoiseTunnel calls, to a method."""

    @wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return method(*args, **kwargs)

    return called


class Attribution:
    """A method of gradtoken in place of one of captum's attributions.

    captum's `NoiseTunnel` and metrics accept it. Pass them a target: without one, each noisy copy
    of an image is explained for the class predicted for that copy.

    Args:
        model: a `Model`, or a module that `wrap` takes.
        method: a name from `methods()`, a `Method` class, or a `Method`.
        activation: of a module, as for `wrap`; a `Model` has its own.
        **options: the method's options, such as `preset="sharp"`.

    Raises:
        ModelError: a module that cannot be explained, or an activation for a `Model`.

    Example:
        >>> attribution = gradtoken.adapters.captum.Attribution(module, "gae")
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
        self.forward_func = self._model.run

    @property
    def multiplies_by_inputs(self) -> bool:
        """False: relevance is not multiplied by the pixels."""
        return False

    def has_convergence_delta(self) -> bool:
        """False: `attribute` has no `return_convergence_delta`."""
        return False

    @_wrapped
    def attribute(
        self,
        inputs: Pixels | tuple[Pixels],
        target: int | tuple[int] | Sequence[int] | Sequence[tuple[int]] | Tensor | None = None,
        additional_forward_args: None = None,
        **unused: Any,
    ) -> Pixels | tuple[Pixels]:
        """Attributions of the inputs' shape, as captum's metrics and plots expect.

        Relevance is interpolated bilinearly to the pixels and divided equally among the channels,
        so that their sum is the map.

        Args:
            inputs: preprocessed images (B, C, H, W), or a tuple that holds such a tensor; for a
                tuple, a tuple is returned.
            target: a class id for all images (an int, or a tensor with one element), or a class id
                per image (a tensor (B,), or a list); None is the predicted class.
            additional_forward_args: None; a Vision Transformer's forward takes images alone.
            **unused: no other option of captum is supported.

        Returns:
            Attributions (B, C, H, W), or a tuple of them.

        Raises:
            ImageError: inputs that are not a tensor of images.
            TargetError: a target that is not a class id per image; other forward arguments, or
                options of captum that are not supported.
        """
        if additional_forward_args is not None:
            unused = {"additional_forward_args": additional_forward_args, **unused}
        if unused:
            raise TargetError(
                f"gradtoken's attributions take no {', '.join(unused)}; give options when making "
                "them."
            )
        images = _images(inputs)
        explanation = explain(
            self._model, images, _targets(target, len(images)), method=self._method, **self._options
        )
        maps = explanation.boxes.grid.enlarge(explanation.tokens[:, 0]).to(images.dtype)
        channels = images.shape[1]
        shared = maps[:, None].expand(-1, channels, -1, -1) / channels
        return (shared,) if isinstance(inputs, tuple) else shared


def _images(inputs: Any) -> Pixels:
    """The tensor of images that captum's `inputs` are or contain."""
    if isinstance(inputs, tuple) and len(inputs) != 1:
        raise ImageError(
            f"inputs is a tuple of {len(inputs)}, and a Vision Transformer takes one tensor of "
            "images (B, C, H, W)."
        )
    images = inputs[0] if isinstance(inputs, tuple) else inputs
    if not isinstance(images, Tensor) or images.ndim != 4:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ImageError(f"inputs must be a tensor of images (B, C, H, W), it is {got}.")
    return images


def _targets(target: Any, count: int) -> list[list[int]] | None:
    """A class for each of `count` images, from a target in any of captum's forms."""
    if target is None:
        return None
    if isinstance(target, Tensor):
        if target.ndim > 1 and target.numel() != 1:
            raise TargetError(
                f"a target of shape {tuple(target.shape)} is no class id for each of {count} "
                "inputs; give an int or a tensor of ids (B,)."
            )
        values = target.flatten().tolist()
    else:
        values = list(target) if isinstance(target, list) else [target]
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise TargetError(f"{len(values)} targets were given for {count} inputs; give one each.")
    return [[_class(value)] for value in values]


def _class(value: Any) -> int:
    """A class id; captum also writes it as a tuple, the index of an output (C,)."""
    if isinstance(value, tuple):
        if len(value) != 1:
            raise TargetError(
                f"the target {value} is an index of {len(value)} dimensions, and a classifier's "
                "output (B, C) has one for each input; give a class id, or a list of ids."
            )
        value = value[0]
    if type(value) is not int:
        raise TargetError(f"the target {value!r} is no class id; give an int for each input.")
    return value
