"""Modules that write into tensors in place (`x += …`, `add_`, `out=`), where autograd often fails.

Reading a model shows whether it does (`Reading.writes_in_place`). Of a model that does, copies are
kept, and its graphs are made as if it wrote nothing. Other modules run without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from gradtoken.tap.function_mode import FunctionMode

_OPERATORS = {
    "__iadd__": Tensor.add,
    "__isub__": Tensor.sub,
    "__imul__": Tensor.mul,
    "__itruediv__": Tensor.div,
    "__ipow__": Tensor.pow,
}

_NO_VALUES = {
    "as_strided_",
    "detach_",
    "rename_",
    "requires_grad_",
    "resize_",
    "resize_as_",
    "set_",
    "share_memory_",
    "squeeze_",
    "swapaxes_",
    "swapdims_",
    "t_",
    "transpose_",
    "unsqueeze_",
}
"""Functions that end in an underscore and change no value."""

_VIEWS = {"chunk": 2, "split": 2, "split_with_sizes": 2, "tensor_split": 2, "unbind": 1}
"""Functions that return several views of a tensor, which autograd does not let be written into, and
the position of their argument `dim`."""


def written_to(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    """The tensor whose values a torch function changes, if it does."""
    if kwargs and isinstance(kwargs.get("out"), Tensor):
        return kwargs["out"]
    if _always_writes(func) or _inplace(func, args, kwargs):
        target = args[0] if args else kwargs.get("input")
        return target if isinstance(target, Tensor) else None
    return None


@lru_cache(maxsize=4096)
def _always_writes(func: Callable[..., Any]) -> bool:
    """Whether a function writes by its name: `add_`, `__iadd__`, `__setitem__`."""
    name = getattr(func, "__name__", "")
    ends = name.endswith("_") and not name.endswith("__") and name not in _NO_VALUES
    return ends or name in _OPERATORS or name == "__setitem__"


def _inplace(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether `inplace=True` is among the arguments, by name or position."""
    if "inplace" in kwargs:
        return bool(kwargs["inplace"])
    at = _inplace_position(func)
    return at is not None and at < len(args) and bool(args[at])


@lru_cache(maxsize=4096)
def _inplace_position(func: Callable[..., Any]) -> int | None:
    """The position of the argument `inplace`, of functions written in Python."""
    code = getattr(func, "__code__", None)
    names = () if code is None else code.co_varnames[: code.co_argcount]
    return names.index("inplace") if "inplace" in names else None


class OutOfPlace(FunctionMode):
    """Computes out of place what would be written in place, and then copies it there.

    So every function is one that autograd and the rules of a tap know, and the copy passes its
    gradient on. Several views of one tensor become separate views, which may be written into.
    """

    def intercept(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _VIEWS and args and isinstance(args[0], Tensor):
            return _separate_views(func, args, kwargs)
        if func is Tensor.__iter__:
            return iter([args[0].select(0, index) for index in range(len(args[0]))])
        target = written_to(func, args, kwargs)
        compute = None if target is None else _out_of_place(func, args, kwargs)
        if target is None or compute is None:
            return func(*args, **kwargs)
        values = compute()
        if "out" in kwargs and target.shape != values.shape:
            target.resize_(values.shape)
        target.copy_(values)
        return target


def _out_of_place(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[], Tensor] | None:
    """A function that computes the values to be written, and writes nothing; None for plain
    assignments.
    """
    name = func.__name__
    if "out" in kwargs:
        rest = {key: value for key, value in kwargs.items() if key != "out"}
        return lambda: func(*args, **rest)
    if _inplace(func, args, kwargs):
        names = func.__code__.co_varnames
        arguments = {**dict(zip(names, args, strict=False)), **kwargs, "inplace": False}
        return lambda: func(**arguments)
    base = "" if name.startswith("__") else name.removesuffix("_")
    twin: Any = _OPERATORS.get(name) or getattr(Tensor, base, None) or getattr(F, base, None)
    return None if twin is None else lambda: twin(*args, **kwargs)


def _separate_views(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensor, at = args[0], _VIEWS[func.__name__]
    dim = kwargs.get("dim", args[at] if len(args) > at else 0)
    sizes = [part.shape for part in func(*args, **kwargs)]
    if func.__name__ == "unbind":
        return tuple(tensor.select(dim, index) for index in range(len(sizes)))
    widths = [size[dim] for size in sizes]
    starts = [sum(widths[:index]) for index in range(len(widths))]
    return tuple(tensor.narrow(dim, *span) for span in zip(starts, widths, strict=True))


class SavedTensorCopies(saved_tensors_hooks):
    """Copies the tensors that autograd saves for a backward pass, except for parameters."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(self._keep, lambda tensor: tensor)
        self._parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self._saved = 0

    def _keep(self, tensor: Tensor) -> Tensor:
        self._saved += 1
        own = tensor.untyped_storage().data_ptr() in self._parameters
        return tensor if own else tensor.clone()

    @property
    def active(self) -> bool:
        """Whether these hooks get what autograd saves now. Inside gradient checkpointing, which
        drops saved tensors by hooks of its own, they do not.
        """
        before = self._saved
        with torch.enable_grad():
            torch.ones(1, requires_grad=True) * torch.ones(1)
        return self._saved > before


@contextmanager
def out_of_place(module: nn.Module) -> Iterator[SavedTensorCopies]:
    """Makes a module that writes in place differentiable, inside the `with` block."""
    saved = SavedTensorCopies(module)
    with saved, OutOfPlace():
        yield saved
