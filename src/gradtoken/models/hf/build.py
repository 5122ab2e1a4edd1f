"""Building a transformers model by hub id, local folder or model type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gradtoken.errors import ModelError, did_you_mean, first_line
from gradtoken.models.families import BuiltModel, Size
from gradtoken.models.hf.anatomy import KNOWN, TEXT_MODELS
from gradtoken.models.hf.preprocess import resized_preprocess
from gradtoken.models.hub import no_retries


def build(
    name: str, *, pretrained: bool, state: Mapping[str, Tensor] | None, size: Size | None
) -> BuiltModel:
    """A model by hub id or local folder; without weights also by model type ("vit").

    Raises:
        ModelError: if it cannot be loaded or built, or does not take the size.
    """
    import transformers
    from transformers import CONFIG_MAPPING, AutoConfig

    try:
        if not pretrained and name in CONFIG_MAPPING:
            config = AutoConfig.for_model(name)
        else:
            with no_retries():
                config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"hf/{name} brings code of its own, which gradtoken does not run; if you trust it, "
                "load it with transformers and give the module to wrap(…)."
            ) from None
        hint = did_you_mean(name, KNOWN) if "/" not in name else ""
        raise ModelError(
            f"hf/{name} cannot be loaded: it is no local folder with a config.json, not in the "
            f"cache and cannot be downloaded{hint or '; check the id or the connection.'} "
            f"({first_line(error)})"
        ) from None
    kinds = config.architectures = config.architectures or []
    compares = config.model_type in TEXT_MODELS and not any(
        "ImageClassification" in k for k in kinds
    )
    auto: Any = transformers.AutoModel if compares else transformers.AutoModelForImageClassification
    for kind in kinds:
        if kind.endswith("WithTeacher"):
            auto = getattr(transformers, kind)
    try:
        if not pretrained:
            make = getattr(auto, "from_config", None) or auto._from_config
            module: nn.Module = make(config)
        else:
            with no_retries():
                module = auto.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"transformers cannot make a model of hf/{name}: {first_line(error)}"
        ) from None
    return BuiltModel(module, None if size is None else resized_preprocess(module, size, name))
