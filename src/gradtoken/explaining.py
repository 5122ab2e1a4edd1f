"""`explain`: pictures and targets in, relevance maps out, one forward for each picture."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from gradtoken.attribution import Method, make_method
from gradtoken.batching import Batch, BatchSize, batches, run_fitting
from gradtoken.boxes import Boxes
from gradtoken.errors import ImageError, MethodError, ModelError, TargetError
from gradtoken.explanation import Explanation, joined
from gradtoken.forks import one_thread_in_forks
from gradtoken.inputs import Inputs
from gradtoken.memory import free_bytes
from gradtoken.models.model import Model
from gradtoken.precision import wide
from gradtoken.sources import Source
from gradtoken.targets import per_image, resolve
from gradtoken.trace import record

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many pictures are done, and of how many."""


def explain(
    model: Model,
    images: Any,
    targets: Any = None,
    *,
    method: str | type[Method] | Method = "gradtoken",
    top_k: int = 1,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Explanation:
    """Explain why a model gives its classes to pictures: one relevance map per image and target.

    Each picture goes through the model once for all its targets (a second time for methods that
    backpropagate through it, such as `gradient="full"`), and the model is left exactly as it was.

    Args:
        model: from `load` or `wrap`.
        images: a path, a picture file's bytes, a PIL image, an array (H, W, 3), a preprocessed
            tensor (3, H, W) or (B, 3, H, W), or a list of these; for a model of C channels, C in
            the place of 3 (files and PIL images for one and three channels).
        targets: None for the `top_k` predicted classes; "all" for every class; a class id or
            name, `contrast(a, b)`, `log_prob(c)` or a function of one image's logits; a
            list of these for all images, or one list per image. Of tensors and arrays, integers
            are ids, and bools (or floats 0.0 and 1.0), one for each class, mark the classes to
            explain (multi-hot rows). `text("a photo of a cat", …)` for models such as CLIP.
        method: a name from `methods()`, a `Method` class, or a method already made.
        top_k: how many predicted classes to explain where no targets are given.
        batch_size: how many pictures go through the model at once; "auto" takes what fits into
            memory, and on a CPU no more than it is faster with.
        workers: processes that decode and preprocess while the model computes; None starts them
            for long lists of pictures, where processes can be forked.
        progress: called with the number of pictures done, and of all.
        **options: the method's options, such as `preset="sharp"`.

    Returns:
        An `Explanation` with `tokens` (B, K, h, w), on the model's device.

    Raises:
        ImageError, TargetError, ModelError, MethodError: each says what is wrong and what to do.

    Example:
        >>> model = gradtoken.load("demo")
        >>> gradtoken.explain(model, "picture.jpg", ["banana", "rocket"]).save("out")
    """
    job = _Job(model, images, targets, method, top_k, batch_size, workers, options)
    parts: list[Explanation] = []
    with model.evaluating():
        for explanation in job.run(one_shape=True, progress=progress):
            if not parts:
                _check_room(model, len(job.inputs), explanation)
            parts.append(explanation)
    sources = [source for part in parts for source in part.sources]
    return joined(parts, sources, Boxes(model.preprocess, sources))


def explain_each(
    model: Model,
    images: Any,
    targets: Any = None,
    *,
    method: str | type[Method] | Method = "gradtoken",
    top_k: int = 1,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    on_error: Callable[[int, ImageError], None] | None = None,
    **options: Any,
) -> Iterator[Explanation]:
    """As `explain`, picture by picture: for more pictures or maps than fit into memory at once.

    Pictures still go through the model in batches, and may differ in the shape of their input.

    Args:
        model: from `load` or `wrap`.
        images: as for `explain`; a list of B images.
        targets: as for `explain`.
        method: a name from `methods()`, a `Method` class, or a method already made.
        top_k: how many predicted classes to explain where no targets are given.
        batch_size: how many images go through the model at once, or "auto".
        workers: processes that decode and preprocess; None starts them where they help.
        progress: called with the number of images done, and of all.
        on_error: called with the position of each picture that cannot be read and the reason; it
            is then left out. Without it, the error is raised.
        **options: the method's options, such as `preset="sharp"`.

    Yields:
        An `Explanation` of one picture, in order.

    Example:
        >>> for one in gradtoken.explain_each(model, paths, "all"):
        ...     strongest = one.tokens[0].amax(dim=(1, 2)).topk(5)
    """
    job = _Job(model, images, targets, method, top_k, batch_size, workers, options)
    return (
        one
        for explanation in job.run(one_shape=False, progress=progress, on_error=on_error)
        for one in explanation
    )


class _Job:
    """What a call asks for, checked before any work."""

    def __init__(
        self,
        model: Model,
        images: Any,
        targets: Any,
        method: str | type[Method] | Method,
        top_k: int,
        batch_size: int | str,
        workers: int | None,
        options: dict[str, Any],
    ) -> None:
        one_thread_in_forks()
        if not isinstance(model, Model):
            raise ModelError(
                f"explain() needs a Model, it got {type(model).__name__}; use load(…) or "
                "wrap(module)."
            )
        if isinstance(method, Method):
            if options:
                raise MethodError("options go with a method's name; this one is already made.")
            self._method = method
        else:
            self._method = make_method(method, **options)
        self._model = model
        self._top_k = top_k
        self._size = BatchSize(batch_size)
        self.inputs = Inputs(model, images, workers=workers)
        self._targets = targets
        self._rows = per_image(targets, len(self.inputs))
        self._prompts = cache(model.read_text) if model.prompts is not None else None

    def run(
        self,
        *,
        one_shape: bool,
        progress: Progress | None,
        on_error: Callable[[int, ImageError], None] | None = None,
    ) -> Iterator[Explanation]:
        """Explanations of the pictures, batch by batch."""
        found = batches(self.inputs, self._size, one_shape=one_shape, on_error=on_error)
        for batch in found:
            yield from run_fitting(batch, self._size, self._explain)
            if progress is not None:
                progress(batch.at[-1] + 1, len(self.inputs))

    def _explain(self, batch: Batch) -> Explanation:
        model, method = self._model, self._method
        boxes = Boxes(model.preprocess, batch.sources)
        if batch.at[0] == 0:
            _ = boxes[0]
        with model.evaluating():
            trace = record(
                model,
                batch.pixels(model),
                start=method.first_block(len(model.anatomy.blocks)),
                queries=method.needs_queries(),
            )
            logits = wide(trace.logits)
            _check_logits(model, logits)
            rows = self._rows
            found = resolve(
                self._targets if rows is None else [rows[index] for index in batch.at],
                logits,
                model.labels,
                top_k=self._top_k,
                prompts=self._prompts,
            )
            with torch.no_grad():
                relevance = method(trace, found)
                _check_relevance(model, method, relevance)
                scores = found.scores(logits[:, None].expand(-1, found.count, -1))
                probabilities = found.probabilities(logits)
        self._size.judge(trace)
        return Explanation(
            tokens=relevance.detach().float().unflatten(-1, trace.grid).contiguous(),
            targets=found,
            labels=found.labels(model.labels),
            scores=scores,
            probabilities=probabilities,
            sources=batch.sources,
            boxes=boxes,
            about=_about(model, method),
        )


def _check_logits(model: Model, logits: Tensor) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(
            f"{model.spec} returned NaN or infinite logits; use dtype='float32' or 'bfloat16', or "
            "check its weights."
        )


def _check_relevance(model: Model, method: Method, relevance: Tensor) -> None:
    if not bool(torch.isfinite(relevance).all()):
        raise MethodError(
            f"{method.name} gave NaN or infinite relevance for {model.spec}; use less extreme "
            "options, or check a target function of your own."
        )


def _check_room(model: Model, count: int, first: Explanation) -> None:
    """Find out after the first batch that all maps will not fit."""
    needed = first.tokens[0].numel() * first.tokens.element_size() * count
    free = free_bytes(model.device)
    if needed > free:
        raise TargetError(
            f"maps of {first.tokens.shape[1]} targets for {count} images take "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; take them picture by "
            "picture with explain_each(), or those of the likeliest classes alone with top_k."
        )


def read_batch(model: Model, images: Any) -> tuple[list[Source], Boxes, Tensor]:
    """Whatever pictures a user gives, as sources, boxes and one preprocessed batch."""
    batch = Batch([], [], [])
    for index, item in enumerate(Inputs(model, images)):
        if isinstance(item, ImageError):
            raise item
        batch.add(index, item)
    return batch.sources, Boxes(model.preprocess, batch.sources), batch.pixels(model)


def _about(model: Model, method: Method) -> dict[str, Any]:
    return {
        "versions": dict(_versions()),
        "model": {
            "spec": model.spec,
            "weights": model.weights,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
        },
        "method": {"name": method.name, "options": method.options()},
    }


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in (
        "gradtoken",
        "torch",
        "timm",
        "transformers",
        "torchvision",
        "open_clip_torch",
        "numpy",
        "pillow",
    ):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
