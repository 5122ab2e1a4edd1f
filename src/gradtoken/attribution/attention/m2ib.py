"""M2IB: the information that tokens must pass on for an image to stay like its prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.attribution.base import Method
from gradtoken.attribution.layers import block_index
from gradtoken.attribution.options import check_number, check_seed, check_whole
from gradtoken.attribution.prompts import require_prompts
from gradtoken.attribution.widened import widened_if_narrow
from gradtoken.errors import MethodError, NotSupportedError
from gradtoken.tap.hooks import block_hooks
from gradtoken.tap.recorder import Recorder
from gradtoken.targets import Target, Targets
from gradtoken.trace.autograd import gradients_enabled
from gradtoken.trace.continued import logits_from
from gradtoken.trace.trace import Trace

_ROWS = 64
"""Images that the blocks run on at once, at least one prompt's samples."""

_START = 5.0
"""The first value of alpha, at which tokens pass almost whole."""


@dataclass(frozen=True, kw_only=True)
class M2IB(Method):
    """R_i = sum over channels of KL(N(lambda h, (1 - lambda)^2) || N(0, 1)) of token i.

    The tokens h that leave a block are replaced by lambda h + (1 - lambda) noise, with standard
    normal noise and lambda = sigmoid(alpha) for each token and channel. For each image and prompt,
    Adam finds the alpha that minimises beta times the mean of KL minus the mean cosine of the
    image's and the prompt's embeddings over samples of the noise. As in the authors' code, alpha
    starts at 5, and R is of the alpha that the last step's forward has, after steps - 1 updates.

    Args:
        block: index of the block, 0-based, negative from the end; the authors take 9 of 12.
        beta: weight of the information against the cosine.
        steps: forwards of the optimisation, from 2 up.
        learning_rate: of Adam.
        samples: samples of the noise in each step.
        seed: of the noise, which is the same for every image and prompt.
    """

    name: ClassVar[str] = "m2ib"
    summary: ClassVar[str] = "information tokens must pass on for the image to stay like a prompt"
    source: ClassVar[str] = "Wang et al., Multi-Modal Information Bottleneck, NeurIPS 2023"
    of_prompts: ClassVar[bool] = True
    slow: ClassVar[bool] = True
    trial: ClassVar[dict[str, Any]] = {"steps": 3, "samples": 2}

    block: int = -3
    beta: float = 0.1
    steps: int = 10
    learning_rate: float = 1.0
    samples: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.block, int) or isinstance(self.block, bool):
            raise MethodError(f"m2ib's block is {self.block!r}; it must be a block's index.")
        check_number(self, "beta")
        check_number(self, "learning_rate")
        check_whole(self, "steps", least=2)
        check_whole(self, "samples")
        check_seed(self)

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        require_prompts(trace, targets)
        trace.check_one_chain()
        index = block_index(self, "block", trace.depth, trace.model.spec)
        step = max(1, _ROWS // self.samples)
        with gradients_enabled(trace.model), widened_if_narrow(trace.model):
            leaving = _leaving(trace, index)
            maps = [
                torch.cat(
                    [
                        self._information(trace, b, index, leaving[b], row[start : start + step])
                        for start in range(0, len(row), step)
                    ]
                )
                for b, row in enumerate(targets.rows)
            ]
        return trace.patch_grid.pick(torch.stack(maps))

    def _information(
        self,
        trace: Trace,
        b: int,
        index: int,
        tokens: Float[Tensor, "tokens dim"],
        prompts: tuple[Target, ...],
    ) -> Float[Tensor, "targets tokens"]:
        """The information of each token of image b that each prompt's optimisation leaves."""
        generator = torch.Generator().manual_seed(self.seed)
        alpha = torch.full((len(prompts), *tokens.shape), _START, dtype=tokens.dtype)
        alpha = alpha.to(tokens.device).requires_grad_()
        optimizer = torch.optim.Adam([alpha], lr=self.learning_rate)
        image = trace.images[b : b + 1]
        for _ in range(self.steps - 1):
            shape = (self.samples, *tokens.shape)
            noise = torch.randn(shape, generator=generator, dtype=torch.float32).to(tokens)
            passed, kept = alpha.sigmoid()[:, None], (-alpha).sigmoid()[:, None]
            mixed = (passed * tokens + kept * noise).flatten(0, 1)
            logits = logits_from(trace, image, index + 1, mixed)
            if not logits.requires_grad:
                raise NotSupportedError(
                    f"needs the gradient at the tokens of block {index}, and {trace.model.spec} "
                    "turns gradients off after it; use recipro-cam."
                )
            by_prompt = zip(prompts, logits.unflatten(0, (len(prompts), -1)), strict=True)
            fitting = torch.stack([target.score(z).mean() for target, z in by_prompt]).sum()
            compression = _information(alpha, tokens).mean(dim=(1, 2)).sum()
            (alpha.grad,) = torch.autograd.grad(self.beta * compression - fitting, [alpha])
            optimizer.step()
        return _information(alpha.detach(), tokens).sum(-1)


def _information(
    alpha: Float[Tensor, "targets tokens dim"], tokens: Float[Tensor, "tokens dim"]
) -> Float[Tensor, "targets tokens dim"]:
    """KL(N(lambda h, (1 - lambda)^2) || N(0, 1)) of each token and channel."""
    mean, deviation = alpha.sigmoid() * tokens, (-alpha).sigmoid()
    return (mean**2 + deviation**2 - 1) / 2 - F.logsigmoid(-alpha)


def _leaving(trace: Trace, index: int) -> Float[Tensor, "batch tokens dim"]:
    """The tokens that leave a block.

    Raises:
        NotSupportedError: if they are not the grid's.
    """
    model = trace.model
    recorder = Recorder(copies=model.writes_in_place)
    watch = block_hooks(model.anatomy, recorder, graph="tail", every_block=True)
    with torch.no_grad(), watch as record:
        model.run(trace.images)
    last = index == trace.depth - 1
    leaving = (record.outputs[index] if last else record.inputs[index + 1]).detach()
    if leaving.shape[1] != trace.patch_grid.tokens:
        raise NotSupportedError(
            f"replaces the tokens that leave block {index}, and those of {model.spec} there are "
            "not the grid's; use a later block, or gradtoken."
        )
    return leaving
