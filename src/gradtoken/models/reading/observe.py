"""One forward on noise, cut after every block, from which models are read and verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.errors import ModelError, first_line
from gradtoken.models.input_layer import mixed_types
from gradtoken.models.model import Model
from gradtoken.models.reading.checkpointing import CheckpointRecorder
from gradtoken.models.reading.gradients import gradients_at, gradients_blocked, random_projection
from gradtoken.precision import wide
from gradtoken.tap.attention_call import TAIL, AttentionCall
from gradtoken.tap.hooks import BlockRecord, block_hooks, contributing_calls
from gradtoken.tap.in_place import SavedTensorCopies, out_of_place

FAILURES = (
    RuntimeError,
    TypeError,
    ValueError,
    AssertionError,
    LookupError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
)
"""What a model's forward raises on an input that it does not take."""


@dataclass(frozen=True)
class Observation:
    """A forward whose blocks each end in a leaf, so that gradients stop at the block they reach.

    Args:
        pixels: the input, a leaf.
        output: (1, C), with a graph to the leaves.
        records: the blocks of each backbone.
        calls: each backbone's attention calls that the output depends on.
        writes_in_place: whether the model wrote into tensors in place.
    """

    pixels: Float[Tensor, "1 channels height width"]
    output: Float[Tensor, "1 classes"]
    records: list[BlockRecord]
    calls: list[list[AttentionCall]]
    writes_in_place: bool

    @property
    def score(self) -> Tensor:
        """A random projection of the output."""
        return random_projection(wide(self.output))

    def tail(self, backbone: int) -> list[AttentionCall]:
        """The attention calls after a backbone's last block that the output depends on."""
        return [call for call in self.calls[backbone] if call.place == TAIL]

    def connected(self, nodes: Sequence[Tensor]) -> bool:
        """Whether the graph of the output leads to any of some nodes, even if by a zero."""
        grads = torch.autograd.grad(self.score, list(nodes), retain_graph=True, allow_unused=True)
        return any(grad is not None for grad in grads)

    def gradients(self, at: Sequence[Tensor], others: Iterable[Tensor] = ()) -> list[Tensor | None]:
        """The score's gradients at some nodes, but for what goes through others."""
        with gradients_blocked(others):
            return gradients_at(self.score, at)


def sample_input(model: Model) -> Float[Tensor, "1 channels height width"]:
    """Noise of the size that the model's preprocessing makes."""
    return noise_of(model, model.preprocess.sample().shape)


def noise_of(model: Model, shape: Sequence[int]) -> Float[Tensor, "1 channels height width"]:
    """The same noise each time, of some shape (channels, height, width), for a model's input."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn((1, *shape), generator=generator, dtype=torch.float32)
    return drawn.to(model.device, model.dtype)


@contextmanager
def with_autograd(model: Model) -> Iterator[None]:
    """Evaluation mode, with autograd usable even inside a caller's `torch.inference_mode`, and of a
    model that writes in place.
    """
    with _with_autograd(model):
        if model.writes_in_place:
            with out_of_place(model.module):
                yield
        else:
            yield


@contextmanager
def with_copies(model: Model) -> Iterator[SavedTensorCopies]:
    """The same, whether the model writes in place or not, with the copies of what is saved."""
    with _with_autograd(model), out_of_place(model.module) as saved:
        yield saved


@contextmanager
def _with_autograd(model: Model) -> Iterator[None]:
    if any(parameter.is_inference() for parameter in model.module.parameters()):
        raise ModelError(
            f"{model.spec} was built inside torch.inference_mode, which forbids gradients through "
            "it; build it outside."
        )
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(model.evaluating())
        yield


def observe(
    backbones: Sequence[Model], *, hooks: Callable[[ExitStack], None] | None = None
) -> Observation:
    """Run a model once on noise and observe the blocks of each of its backbones.

    Args:
        backbones: the same model, each time with other blocks.
        hooks: registers more hooks, to be removed with the stack.

    Raises:
        ModelError: if the forward fails or gives no (1, C) output with a graph.
    """
    model = backbones[0]
    with with_copies(model) as saved, ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        pixels = sample_input(model).requires_grad_()
        recorders = [CheckpointRecorder(saved) for _ in backbones]
        records = [
            stack.enter_context(block_hooks(model.anatomy, recorder, graph="cut", every_block=True))
            for model, recorder in zip(backbones, recorders, strict=True)
        ]
        if hooks is not None:
            hooks(stack)
        for recorder in recorders:
            stack.enter_context(recorder)
        output = run(model, pixels)
        stack.close()
        for recorder in recorders:
            recorder.check(model.spec)
        with torch.enable_grad():
            check_output(model, output)
            calls = [contributing_calls(recorder.calls, output) for recorder in recorders]
    return Observation(pixels, output, records, calls, recorders[0].written)


def run(model: Model, images: Tensor) -> Any:
    """The model's output for some images.

    Raises:
        ModelError: if its forward fails.
    """
    try:
        return model.run(images)
    except (ModelError, torch.OutOfMemoryError):
        raise
    except FAILURES as error:
        raise ModelError(
            f"{model.spec} cannot run on a batch of shape {tuple(images.shape)}: "
            f"{first_line(error)}; if it takes images of "
            "another size, pass wrap(…, preprocess=…), and if it is called in another way, "
            f"wrap(…, forward=…){mixed_types(model.module) or '.'}"
        ) from error


def check_output(model: Model, output: Any) -> None:
    """See that an output is logits with a graph.

    Raises:
        ModelError: saying what it is, and what to do.
    """
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise ModelError(
            f"{model.spec} returned {_description(output)} where logits (B, C) are needed; give it "
            "a classification head, or tell how to get them with wrap(…, forward=…)."
        )
    if not output.requires_grad:
        raise ModelError(
            f"the output of {model.spec} has no gradient (its head runs under torch.no_grad or "
            "detaches its tokens), so nothing can be explained by it; compute the output "
            "differentiably."
        )


def _description(output: Any) -> str:
    """An output's kind, in words."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, dict):
        return f"a mapping with {', '.join(map(repr, list(output)[:8]))}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)}"
    return type(output).__name__


def module_ids(blocks: Sequence[nn.Module]) -> set[int]:
    """Ids of all modules in some blocks."""
    return {id(part) for block in blocks for part in block.modules()}
