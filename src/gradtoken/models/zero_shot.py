"""Classifiers made of models that compare images with text: their classes are prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gradtoken.errors import ModelError
from gradtoken.models.model import Model
from gradtoken.targets.labels import Labels
from gradtoken.targets.prompts import PromptBatch

TEMPLATE = "a photo of a {}"


@dataclass(frozen=True, eq=False)
class PromptHead:
    """A forward whose logits are scale * cosine + bias of the image and each prompt.

    Args:
        embed: the forward of the text model, from module and pixels to the image's embedding.
        prompts: the texts.
        batch: their embeddings.
    """

    embed: Callable[[nn.Module, Tensor], Any]
    prompts: tuple[str, ...]
    batch: PromptBatch

    def __call__(
        self, module: nn.Module, images: Float[Tensor, "batch channels h w"]
    ) -> Float[Tensor, "batch classes"]:
        """The logits of the prompts."""
        embedding = self.embed(module, images)
        texts = self.batch.embeddings.to(embedding.device, embedding.dtype)
        return F.normalize(embedding, dim=-1) @ texts.T * self.batch.scale + self.batch.bias


def zero_shot(model: Model, names: Sequence[str], template: str = TEMPLATE) -> Model:
    """A text model as a classifier of these classes, such as CLIP or SigLIP.

    The module is shared and stays as it is. Probabilities are by softmax over all prompts, or by
    sigmoid where the model was trained so.

    Args:
        model: compares images with text.
        names: of the classes.
        template: of the prompts; {} stands for the name.

    Raises:
        ModelError: a model that has classes already, a template without {}, or no names.
    """
    if model.prompts is None:
        raise ModelError(
            f"{model.spec} has classes and reads no text, so it takes no prompts; use a model such "
            "as open_clip/ViT-B-32/openai."
        )
    if "{}" not in template:
        raise ModelError(
            f"the template {template!r} has no place for a name; write {{}} where it goes, as in "
            f"{TEMPLATE!r}."
        )
    if not names:
        raise ModelError(f"{model.spec} needs the names of classes as prompts, and there are none.")
    texts = tuple(template.replace("{}", name) for name in names)
    return _with_head(model, Labels(names), texts, model.read_text(texts))


def _with_head(model: Model, labels: Labels, texts: tuple[str, ...], batch: PromptBatch) -> Model:
    head = PromptHead(model.anatomy.forward, texts, batch)
    return replace(
        model,
        anatomy=replace(model.anatomy, forward=head),
        labels=labels,
        prompts=None,
        activation="sigmoid" if batch.independent else "softmax",
        others=tuple(_with_head(other, labels, texts, batch) for other in model.others),
    )
