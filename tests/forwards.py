"""Observing the forward passes of a model."""

from __future__ import annotations

from collections.abc import Callable

from gradtoken.models import Model


def batch_sizes(model: Model, run: Callable[[], object]) -> list[int]:
    """The batch size of each forward pass while `run` runs."""
    sizes: list[int] = []
    hook = model.module.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    try:
        run()
    finally:
        hook.remove()
    return sizes
