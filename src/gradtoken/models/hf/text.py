"""transformers: the text side of a CLIPModel or SiglipModel, and its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import ModelError, first_line
from gradtoken.models.hub import no_retries
from gradtoken.models.tokenizing import check_tokens, check_vocabulary
from gradtoken.targets.prompts import PromptBatch


class HFPrompts:
    """The text side of a CLIPModel or SiglipModel.

    Args:
        module: the model.
        tokenizer: transformers' tokenizer or processor; None is the one beside the model's files.

    Raises:
        ModelError: if the tokenizer is none of transformers', or has another vocabulary.
    """

    def __init__(self, module: Any, tokenizer: Any = None) -> None:
        from transformers import PreTrainedTokenizerBase

        self._module = module
        self.tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        if tokenizer is None:
            return
        if not isinstance(self.tokenizer, PreTrainedTokenizerBase):
            raise ModelError(
                f"tokenizer is a {type(tokenizer).__name__}, not a tokenizer or processor of "
                "transformers; give AutoTokenizer.from_pretrained(…)."
            )
        check_vocabulary(self.tokenizer, self._words, type(module).__name__)

    @property
    def _words(self) -> int:
        return int(self._module.text_model.embeddings.token_embedding.num_embeddings)

    @cached_property
    def _read(self) -> Any:
        from transformers import AutoTokenizer

        if self.tokenizer is not None:
            return self.tokenizer
        name, where = type(self._module).__name__, self._module.config._name_or_path
        try:
            with no_retries():
                tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(
                f"the tokenizer of {where or name!r} cannot be loaded "
                f"({first_line(error)}); save it beside the model, or pass "
                "wrap(…, tokenizer=…)."
            ) from None
        check_vocabulary(tokenizer, self._words, where or name)
        return tokenizer

    def __call__(self, texts: Sequence[str]) -> PromptBatch:
        module = self._module
        length = module.config.text_config.max_position_embeddings
        whole = module.config.model_type == "siglip"  # which was trained on padded prompts
        tokens = self._read(
            list(texts),
            padding="max_length" if whole else True,
            truncation=True,
            max_length=length,
            return_tensors="pt",
        ).to(module.device)
        check_tokens(
            tokens["input_ids"],
            len(texts),
            self._words,
            length if whole else None,
            type(module).__name__,
        )
        features = module.get_text_features(**tokens)
        features = features if isinstance(features, Tensor) else features.pooler_output
        bias = getattr(module, "logit_bias", None)
        return PromptBatch(
            F.normalize(features.float(), dim=-1),
            scale=math.exp(float(module.logit_scale)),
            bias=0.0 if bias is None else float(bias),
            independent=bias is not None,
        )
