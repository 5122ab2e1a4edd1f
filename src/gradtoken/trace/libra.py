"""A model's output and scores, with LibraGrad's backward pass or the model's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gradtoken.errors import NotSupportedError
from gradtoken.models.model import Model
from gradtoken.tap.in_place import OutOfPlace
from gradtoken.tap.libra import ConstantNorms, Libra


@contextmanager
def backward_of(model: Model, *, libra: bool) -> Iterator[None]:
    """What runs inside the `with` has LibraGrad's backward pass, or its own. Enter taps before."""
    with ExitStack() as stack:
        if libra:
            stack.enter_context(Libra(model.spec))
        if libra and model.writes_in_place:
            stack.enter_context(OutOfPlace())
        yield


def run_with_gradient(model: Model, images: Tensor, *, libra: bool) -> Any:
    """The output of a model for some images, with its own backward pass or LibraGrad's.

    Args:
        model: the model.
        images: (B, C, H, W).
        libra: whether the backward pass is LibraGrad's (`gradtoken.tap.libra`). Enter taps before.

    Raises:
        NotSupportedError: if LibraGrad leaves the output no gradient.
    """
    with backward_of(model, libra=libra):
        output = model.run(images)
    no_gradient = isinstance(output, Tensor) and not output.requires_grad
    if libra and no_gradient and torch.is_grad_enabled():
        raise NotSupportedError(
            f"with libra=True gets no gradient: the output of {model.spec} is a nonlinear gate or "
            "attention weight (a softmax or sigmoid at its end), whose gradient LibraGrad drops; "
            "use libra=False, or let the model return its logits."
        )
    return output


def scoring(*, libra: bool) -> AbstractContextManager[object]:
    """The mode in which targets are scored on a model's output.

    With LibraGrad the embedding's length, by which the similarity with a text prompt is divided,
    is a constant.
    """
    return ConstantNorms() if libra else nullcontext()
