"""Methods that explain the similarity with text prompts alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import NotSupportedError
from gradtoken.targets import Targets
from gradtoken.targets.prompts import PromptBatch
from gradtoken.targets.similarity import Similarity, SimilarityContrast
from gradtoken.trace.trace import Trace


def require_prompts(trace: Trace, targets: Targets) -> None:
    """Check that every target is a text prompt, or a contrast of two.

    Raises:
        NotSupportedError: another target.
    """
    for row in targets.rows:
        for target in row:
            if not isinstance(target, (Similarity, SimilarityContrast)):
                raise NotSupportedError(
                    f"explains text prompts alone, not {target.label(trace.model.labels)!r} of "
                    f"{trace.model.spec}; give text(…) to a model such as CLIP, or use gradtoken."
                )


def by_prompt(
    targets: Targets,
    maps: Callable[[PromptBatch], Float[Tensor, "batch prompts patches"]],
) -> Float[Tensor, "batch targets patches"]:
    """The maps of targets that are prompts, from the maps of all prompts of each `text(…)`.

    A contrast of two prompts is the difference of their maps.

    Args:
        targets: prompts, and contrasts of two.
        maps: the maps of every prompt of a batch, for every image.
    """
    known: dict[int, Tensor] = {}

    def of(prompt: Similarity, image: int) -> Tensor:
        key = id(prompt.batch)
        if key not in known:
            known[key] = maps(prompt.batch)
        return known[key][image, prompt.index]

    rows = []
    for image, row in enumerate(targets.rows):
        own = []
        for target in row:
            if isinstance(target, SimilarityContrast):
                own.append(of(target.a, image) - of(target.b, image))
            else:
                assert isinstance(target, Similarity)
                own.append(of(target, image))
        rows.append(torch.stack(own))
    return torch.stack(rows)
