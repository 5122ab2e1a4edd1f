"""Checking that a tokenizer fits a text tower; another one's ids would be other words."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gradtoken.errors import ModelError

_MOST = 2
"""A text tower may have so many times the words of its tokenizer (rows are added to fill up)."""


def words_of(tokenizer: Any) -> int | None:
    """The size of a tokenizer's vocabulary, where it tells."""
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    if hasattr(inner, "__len__"):
        return len(inner)
    size = getattr(inner, "vocab_size", None)
    return size if isinstance(size, int) else None


def check_vocabulary(tokenizer: Any, rows: int, name: str) -> None:
    """See that a tokenizer has at most as many words as a text tower, and at least half as many.

    Raises:
        ModelError: with both numbers.
    """
    words = words_of(tokenizer)
    if words is not None and not words <= rows <= _MOST * words:
        raise ModelError(
            f"the tokenizer has a vocabulary of {words:,} and the text tower of {name} one of "
            f"{rows:,}, so it is another model's; pass wrap(…, tokenizer=…) with its own."
        )


def check_tokens(tokens: Any, count: int, rows: int, length: int | None, name: str) -> Tensor:
    """The token ids of `count` prompts, if a text tower can read them.

    Args:
        tokens: the tokenizer's result.
        count: how many prompts there were.
        rows: words of the text tower.
        length: tokens that it takes for each prompt, where it takes no other number.
        name: the model, for errors.

    Raises:
        ModelError: no ids (prompts, tokens), ids that are no words, or another number of tokens.
    """
    ids = isinstance(tokens, Tensor) and not tokens.is_floating_point() and tokens.ndim == 2
    if not ids or len(tokens) != count:
        got = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ModelError(
            f"the tokenizer of {name} made {got} of {count} prompts; it must return token ids "
            "(prompts, tokens), as open_clip.get_tokenizer(NAME) does."
        )
    if int(tokens.min()) < 0 or int(tokens.max()) >= rows:
        raise ModelError(
            f"the tokenizer made the id {int(tokens.max())}, and the text tower of {name} has a "
            f"vocabulary of {rows:,}, so it is another model's; pass wrap(…, tokenizer=…) with its "
            "own."
        )
    if length is not None and tokens.shape[1] != length:
        raise ModelError(
            f"the tokenizer made {tokens.shape[1]} tokens of a prompt, and {name} was built for "
            f"{length}; give one with context_length={length}."
        )
    return tokens
