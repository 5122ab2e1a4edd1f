"""Building an open_clip model by architecture and pretrained tag."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import open_clip
from open_clip.model import resize_pos_embed
from torch import Tensor, nn

from gradtoken.errors import ModelError, did_you_mean, first_line
from gradtoken.models.checkpoint import fit, own_names
from gradtoken.models.families import BuiltModel, Size
from gradtoken.models.hub import no_retries, quiet
from gradtoken.models.open_clip.text import NamedTokenizer, OpenClipPrompts


def _resize(state: dict[str, Tensor], module: nn.Module, name: str) -> None:
    """Bring a state dict's position embeddings to a module's input size, in place."""
    try:
        resize_pos_embed(state, module)
    except (LookupError, AttributeError, ArithmeticError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the checkpoint's position embeddings do not fit open_clip/{name}: {error}."
        ) from None


def names() -> list[str]:
    """Architectures with the tags of their pretrained weights, but for those on ResNets."""
    return [
        f"{architecture}/{tag}"
        for architecture, tag in open_clip.list_pretrained()
        if not architecture.startswith(("RN", "convnext"))
    ]


def build(
    name: str, *, pretrained: bool, state: Mapping[str, Tensor] | None, size: Size | None
) -> BuiltModel:
    """A model by "ARCHITECTURE/TAG" (or "ARCHITECTURE" without weights or with a checkpoint's).

    Raises:
        ModelError: unknown, weights that cannot be had, or a checkpoint that does not fit.
    """
    architecture, _, tag = name.partition("/")
    architectures = open_clip.list_models()
    if architecture not in architectures:
        hint = did_you_mean(architecture, architectures)
        raise ModelError(
            f"open_clip has no model named {architecture!r}"
            f"{hint or '; open_clip.list_models() lists them.'}"
        )
    pretrained = pretrained and state is None
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if pretrained and tag not in tags:
        raise ModelError(
            f"open_clip/{architecture} needs a pretrained tag, as in open_clip/{architecture}/TAG "
            f"with one of: {', '.join(tags) or 'none exist'}; or pass checkpoint=FILE or "
            "pretrained=False (--random-weights)."
        )
    try:
        with no_retries(), nullcontext() if pretrained else quiet():
            module: nn.Module = open_clip.create_model(
                architecture,
                pretrained=tag if pretrained else None,
                pretrained_hf=False,
                pretrained_image=False,
                force_image_size=size,
            )
    except (OSError, AssertionError, RuntimeError, ValueError) as error:
        reason = first_line(error, "no reason given")
        raise ModelError(
            f"open_clip/{name} cannot be built ({reason}); if its weights are not in the cache and "
            "there is no connection, pass pretrained=False (--random-weights)."
        ) from None
    if state is not None:
        state = own_names(state, module.state_dict())
        if size is not None:
            _resize(state, module, name)
        fit(module, state, f"open_clip/{architecture}")
    return BuiltModel(module, prompts=OpenClipPrompts(module, NamedTokenizer(architecture)))
