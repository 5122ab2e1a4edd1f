"""open_clip: the text side of a model, and the tokenizer that its words are of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import open_clip
from open_clip.model import CLIP
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from gradtoken.errors import ModelError, first_line
from gradtoken.models.hub import no_retries
from gradtoken.models.tokenizing import check_tokens, check_vocabulary
from gradtoken.targets.prompts import PromptBatch

Tokenizer: TypeAlias = Callable[[list[str]], Tensor]

_WORDS_OF_CLIP = 49408


class NamedTokenizer:
    """The tokenizer that open_clip names for an architecture, loaded when it is needed."""

    def __init__(self, architecture: str) -> None:
        self._architecture = architecture

    @cached_property
    def tokenizer(self) -> Any:
        try:
            with no_retries():
                return open_clip.get_tokenizer(self._architecture)
        except Exception as error:  # the hub's and tokenizers' own errors, of many kinds  # noqa: BLE001
            raise ModelError(
                f"the tokenizer of {self._architecture} is not in the cache and cannot be "
                f"downloaded ({first_line(error, 'no reason given')})."
            ) from None

    def __call__(self, texts: list[str]) -> Tensor:
        tokens: Tensor = self.tokenizer(texts)
        return tokens


class OpenClipPrompts:
    """The text side of an open_clip model.

    Args:
        module: the model.
        tokenizer: from prompts to token ids (prompts, tokens); None is CLIP's own, for a text
            tower that is CLIP's.

    Raises:
        ModelError: if the tokenizer is none, or has another vocabulary.
    """

    def __init__(self, module: Any, tokenizer: Any = None) -> None:
        if tokenizer is not None and not callable(tokenizer):
            raise ModelError(
                f"tokenizer is a {type(tokenizer).__name__}, which cannot be called; give "
                "open_clip.get_tokenizer(NAME)."
            )
        if tokenizer is not None and not isinstance(tokenizer, NamedTokenizer):
            check_vocabulary(tokenizer, _words(module), type(module).__name__)
        self._module = module
        self.tokenizer = tokenizer

    @cached_property
    def _read(self) -> Tokenizer:
        if self.tokenizer is not None:
            tokenizer: Tokenizer = self.tokenizer
            return tokenizer
        module = self._module
        if not _is_clip_tower(module):
            raise ModelError(
                f"the text tower of {type(module).__name__} ({type(_tower(module)).__name__}, "
                f"vocabulary {_words(module):,}) is not known to be CLIP's, so its tokenizer is "
                "not known; pass wrap(…, tokenizer=open_clip.get_tokenizer(NAME))."
            )
        return open_clip.SimpleTokenizer(context_length=module.context_length)

    def __call__(self, texts: Sequence[str]) -> PromptBatch:
        module, name = self._module, type(self._module).__name__
        own = isinstance(_tower(module), (CLIP, TextTransformer))
        length = module.context_length if own else None
        tokens = check_tokens(self._read(list(texts)), len(texts), _words(module), length, name)
        embeddings = module.encode_text(tokens.to(_embedding(module).weight.device))
        bias = getattr(module, "logit_bias", None)
        return PromptBatch(
            F.normalize(embeddings.float(), dim=-1),
            scale=math.exp(float(module.logit_scale)),
            bias=0.0 if bias is None else float(bias),
            independent=bias is not None,
        )


class NoText:
    """In the place of a text side, of an image tower given alone."""

    def __init__(self, module: Any) -> None:
        self._name = type(module).__name__

    def __call__(self, texts: Sequence[str]) -> PromptBatch:
        raise ModelError(
            f"{self._name} is the image tower of an open_clip model alone and reads no text; wrap "
            "the whole model, as in wrap(clip) in place of wrap(clip.visual), or ask with a "
            "function of the embedding."
        )


def _tower(module: Any) -> Any:
    """The part that reads text; of a CLIP, the model itself."""
    return getattr(module, "text", module)


def _embedding(module: Any) -> nn.Embedding:
    """The embeddings of words; a tower of transformers has them inside."""
    tower = _tower(module)
    own = getattr(tower, "token_embedding", None)
    words: nn.Embedding = tower.transformer.get_input_embeddings() if own is None else own
    return words


def _words(module: Any) -> int:
    return int(_embedding(module).num_embeddings)


def _is_clip_tower(module: Any) -> bool:
    """Whether the text tower is open_clip's own, with the vocabulary of CLIP's tokenizer."""
    return isinstance(_tower(module), (CLIP, TextTransformer)) and _words(module) == _WORDS_OF_CLIP
