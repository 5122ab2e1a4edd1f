"""A module's forward in a wider type than its own, without a copy of the module.

Layer-wise relevance divides by sums that cross zero, and gradients of single pixels are smaller
than the rounding of half precision: both are computed in a wider type, whatever the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gradtoken.errors import NotSupportedError
from gradtoken.models.model import Model
from gradtoken.tap.function_mode import FunctionMode
from gradtoken.tap.in_place import written_to

_NARROWING = (Tensor.float, Tensor.half, Tensor.bfloat16)

_PROPERTIES = {
    "__hash__",
    "__len__",
    "__repr__",
    "data_ptr",
    "dim",
    "element_size",
    "get_device",
    "is_complex",
    "is_contiguous",
    "is_floating_point",
    "ndimension",
    "numel",
    "size",
    "storage_offset",
    "stride",
    "untyped_storage",
}
"""Functions that return properties of a tensor and do not compute with it."""


class Widened(FunctionMode):
    """A mode in which torch functions compute in a wider type than that of their arguments.

    A narrower floating tensor is converted for the function call that takes it: the module, other
    threads and the caller are not affected. A narrower type that the module's code names
    (`x.to(torch.float16)`) is replaced by the wide one. Enter the mode after a tap, which then gets
    wide tensors.

    Args:
        dtype: the wide type.
        spec: the model's name, for errors.
    """

    def __init__(self, dtype: torch.dtype, spec: str) -> None:
        super().__init__()
        self._dtype = dtype
        self._spec = spec

    def intercept(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__" or name in _PROPERTIES:
            return self._wide(func(*args, **kwargs))
        if func in _NARROWING:
            return args[0].to(self._dtype)
        target = written_to(func, args, kwargs)
        if target is not None and self._narrow(target):
            raise NotSupportedError(
                f"computes in {_name(self._dtype)}, but {self._spec} writes into "
                f"a tensor of its own ({name} on {_name(target.dtype)}); convert the model with "
                f".to(torch.{_name(self._dtype)})."
            )
        converted = {key: self._wide(value) for key, value in kwargs.items()}
        return self._wide(func(*self._wide(args), **converted))

    def _wide(self, item: Any) -> Any:
        """An argument or result with the narrow tensors and types in it made wide."""
        if isinstance(item, Tensor):
            if not self._narrow(item):
                return item
            return (item.detach() if item.is_leaf else item).to(self._dtype)
        if isinstance(item, torch.dtype):
            narrow = item.is_floating_point and item.itemsize < self._dtype.itemsize
            return self._dtype if narrow else item
        if type(item) in (list, tuple):
            return type(item)(self._wide(element) for element in item)
        return item

    def _narrow(self, tensor: Tensor) -> bool:
        return tensor.is_floating_point() and tensor.dtype.itemsize < self._dtype.itemsize


@contextmanager
def widening(model: Model, dtype: torch.dtype) -> Iterator[Widened]:
    """The mode for a model's forward in a wider type; autocast is off on its device.

    Raises:
        NotSupportedError: if the device does not have the type.
    """
    try:
        torch.zeros((), dtype=dtype, device=model.device)
    except (TypeError, RuntimeError) as error:
        raise NotSupportedError(
            f"computes in {_name(dtype)}, which the device {model.device} does not have "
            f"({str(error).splitlines()[0]}); move the model to the CPU."
        ) from None
    with torch.autocast(model.device.type, enabled=False):
        yield Widened(dtype, model.spec)


def widened_if_narrow(model: Model) -> AbstractContextManager[object]:
    """A context in which a model in half precision, or under autocast, computes in float32."""
    values = (*model.module.parameters(), *model.module.buffers())
    narrow = any(v.is_floating_point() and v.dtype.itemsize < 4 for v in values)
    if not narrow and not torch.is_autocast_enabled(model.device.type):
        return nullcontext()
    return _in_float32(model)


@contextmanager
def _in_float32(model: Model) -> Iterator[None]:
    with widening(model, torch.float32) as widened, widened:
        yield


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
