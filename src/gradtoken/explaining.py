"""`explain`: pictures and targets in, relevance maps out, one forward for each picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from gradtoken.attribution import Method, make_method
from gradtoken.attribution.base import relevance_of
from gradtoken.attribution.provenance import provenance
from gradtoken.batching import Batch, BatchSize, batches, free_bytes, run_fitting
from gradtoken.errors import ImageError, MethodError, ModelError, TargetError
from gradtoken.explanation.explanation import Explanation
from gradtoken.explanation.joining import joined
from gradtoken.explanation.ragged import Explained, padded, trimmed
from gradtoken.images.boxes import Boxes
from gradtoken.images.inputs import Inputs
from gradtoken.images.source import Source
from gradtoken.models.forks import one_thread_in_forks
from gradtoken.models.model import Model
from gradtoken.precision import wide
from gradtoken.targets import Above, Target, Targets, per_image, resolve_rows
from gradtoken.targets.targets import refuse_ragged
from gradtoken.trace.record import record

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many pictures are done, and of how many."""
OnError: TypeAlias = Callable[[int, ImageError | TargetError], None]
"""Told the position of an image that is left out, and why."""


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
        targets: None for the `top_k` predicted classes; "all" for every class; `above(p)` for
            every class with a higher probability; a class id or name, `contrast(a, b)`,
            `log_prob(c)` or a function of one image's logits; a list of these for all images, or
            one list per image, each of the same length. Of tensors and arrays, integers are ids,
            and bools (or floats 0.0 and 1.0), one for each class, mark the classes to explain
            (multi-hot rows). `text("a photo of a cat", …)` for models such as CLIP.
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
    return joined(parts, sources, Boxes(model.preprocess, sources, parts[0].boxes.grid))


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
    on_error: OnError | None = None,
    **options: Any,
) -> Iterator[Explanation]:
    """As `explain`, picture by picture: for more pictures or maps than fit into memory at once.

    Pictures still go through the model in batches, and may differ in the shape of their input and
    in the number of their targets.

    Args:
        model: from `load` or `wrap`.
        images: as for `explain`; a list of B images.
        targets: as for `explain`; lists for each image may have different lengths.
        method: a name from `methods()`, a `Method` class, or a method already made.
        top_k: how many predicted classes to explain where no targets are given.
        batch_size: how many images go through the model at once, or "auto".
        workers: processes that decode and preprocess; None starts them where they help.
        progress: called with the number of images done, and of all.
        on_error: called with the position of each image that cannot be read, or that has no class
            above p where `above(p)` is requested, and the reason (an `ImageError`, a
            `TargetError`); it is then left out. Without it, the error is raised.
        **options: the method's options, such as `preset="sharp"`.

    Yields:
        An `Explanation` of one picture, in order.

    Example:
        >>> for one in gradtoken.explain_each(model, paths, "all"):
        ...     strongest = one.tokens[0].amax(dim=(1, 2)).topk(5)
    """
    job = _Job(model, images, targets, method, top_k, batch_size, workers, options)
    return job.run(one_shape=False, progress=progress, on_error=on_error)


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
        self.inputs = Inputs(model.preprocess, images, workers=workers)
        self._targets = targets
        self._rows = per_image(targets, len(self.inputs))
        self._count = 0
        self._prompts = cache(model.read_text) if model.prompts is not None else None

    def run(
        self,
        *,
        one_shape: bool,
        progress: Progress | None,
        on_error: OnError | None = None,
    ) -> Iterator[Explanation]:
        """Explanations of the images: of each batch where they have one shape, else of each."""
        found = batches(self.inputs, self._size, one_shape=one_shape, on_error=on_error)
        work = partial(self._explain, together=one_shape, raising=on_error is None)
        for batch in found:
            for done in run_fitting(batch, self._size, work):
                for index, error in done.refused:
                    assert on_error is not None
                    on_error(index, error)
                yield from done.explanations
            if progress is not None:
                progress(batch.at[-1] + 1, len(self.inputs))

    def _explain(self, batch: Batch, *, together: bool, raising: bool) -> Explained:
        model, method = self._model, self._method
        if batch.at[0] == 0 and batch.sources[0].kind != "tensor":
            model.preprocess.box(batch.sources[0].size)
        with model.evaluating():
            trace = record(
                model,
                batch.pixels(model),
                start=method.first_block(len(model.anatomy.blocks)),
                queries=method.needs_queries(),
            )
            logits = wide(trace.logits)
            _check_logits(model, logits)
            rows = self._resolved(batch, logits)
            refused = self._refused(batch, logits, rows)
            if refused and raising:
                index, error = refused[0]
                raise TargetError(f"image {index}: {error}")
            if not any(rows):
                return Explained([], refused)
            found = self._together(rows) if together else padded(rows)
            with torch.no_grad():
                relevance = relevance_of(method, trace, found)
                _check_relevance(model, method, relevance)
                scores = found.scores(logits[:, None].expand(-1, found.count, -1))
                probabilities = found.probabilities(logits, model.activation)
        self._size.judge(trace)
        whole = Explanation(
            tokens=relevance.detach().float().unflatten(-1, trace.grid).contiguous(),
            targets=found,
            labels=found.labels(model.labels),
            scores=scores,
            probabilities=probabilities,
            sources=batch.sources,
            boxes=Boxes(model.preprocess, batch.sources, trace.patch_grid),
            about=provenance(model, method),
        )
        if together:
            return Explained([whole], refused)
        each = zip(whole, rows, strict=True)
        return Explained([trimmed(one, len(row)) for one, row in each if row], refused)

    def _resolved(self, batch: Batch, logits: Tensor) -> list[list[Target]]:
        """The targets of each image of a batch; none only where `above(p)` finds none."""
        rows, model = self._rows, self._model
        found = resolve_rows(
            self._targets if rows is None else [rows[index] for index in batch.at],
            logits,
            model.labels,
            top_k=self._top_k,
            prompts=self._prompts,
            activation=model.activation,
        )
        if not all(found) and not isinstance(self._targets, Above):
            raise TargetError("there is nothing to explain: give at least one target.")
        return found

    def _refused(
        self, batch: Batch, logits: Tensor, rows: Sequence[Sequence[Target]]
    ) -> list[tuple[int, TargetError]]:
        """The images without a class above p, by their positions, and a sentence for each."""
        model, above = self._model, self._targets
        return [
            (index, TargetError(above.none(logits[place], model.activation, model.labels)))
            for place, (index, row) in enumerate(zip(batch.at, rows, strict=True))
            if isinstance(above, Above) and not row
        ]

    def _together(self, rows: Sequence[Sequence[Target]]) -> Targets:
        """Targets of a batch that is to be one result with the batches before it."""
        refuse_ragged({len(row) for row in rows} | {self._count or len(rows[0])})
        self._count = len(rows[0])
        return Targets(rows)


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


def read_batch(model: Model, images: Any) -> tuple[list[Source], Tensor]:
    """Whatever images a user gives, as sources and one preprocessed batch."""
    batch = Batch([], [], [])
    for index, item in enumerate(Inputs(model.preprocess, images)):
        if isinstance(item, ImageError):
            raise item
        batch.add(index, item)
    return batch.sources, batch.pixels(model)
