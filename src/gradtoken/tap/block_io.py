"""The tokens among the arguments and results of a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.tap.anatomy import BlockArguments


def block_tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, BlockArguments]:
    """The tokens (B, N, D) that a block is called with, and its other arguments.

    They are its first argument, alone or as the only entry of a list, or its first keyword that is
    a tensor.

    Raises:
        ModelError: if there are none, or several sequences of them.
    """
    more, name = dict(kwargs), None
    if args:
        tokens, rest = args[0], args[1:]
    else:
        name = next((name for name, value in more.items() if isinstance(value, Tensor)), None)
        tokens, rest = more.pop(name) if name else None, ()
    listed = isinstance(tokens, (list, tuple)) and len(tokens) == 1
    if listed:
        tokens = tokens[0]
    if not isinstance(tokens, Tensor) or tokens.ndim < 2:
        what = f"{len(tokens)} sequences" if isinstance(tokens, (list, tuple)) else "none"
        raise ModelError(
            f"the model's blocks must be called with one sequence of tokens (B, N, D), and got "
            f"{what}; explain the model on one batch of images of one size."
        )
    return tokens, BlockArguments(rest, more, listed, name)


def with_block_tokens(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], tokens: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a block with other tokens, as a forward pre-hook returns them."""
    if args:
        return (with_output_tokens(args[0], tokens), *args[1:]), dict(kwargs)
    name = next(name for name, value in kwargs.items() if isinstance(value, Tensor))
    return (), {**kwargs, name: tokens}


def output_tokens(output: Any) -> Any:
    """The tokens of a block's output, which are its first entry if it is a tuple or list."""
    return output[0] if isinstance(output, (tuple, list)) else output


def with_output_tokens(output: Any, tokens: Tensor) -> Any:
    """A block's output with other tokens."""
    if isinstance(output, list):
        return [tokens, *output[1:]]
    return (tokens, *output[1:]) if isinstance(output, tuple) else tokens
