"""The explanation of a list of images, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gradtoken.attribution import Method, make_method
from gradtoken.attribution.base import relevance_of
from gradtoken.attribution.provenance import provenance
from gradtoken.batching import Batch, BatchSize, batches, free_bytes, run_fitting
from gradtoken.errors import ImageError, MethodError, ModelError, TargetError
from gradtoken.explanation.explanation import Explanation
from gradtoken.explanation.padding import pad_targets, trim_targets
from gradtoken.images.inputs import Inputs
from gradtoken.images.source import Boxes
from gradtoken.models.forks import one_thread_in_forks
from gradtoken.models.model import Model
from gradtoken.precision import wide
from gradtoken.targets import Above, Target, Targets, per_image, resolve_rows
from gradtoken.targets.targets import check_equal_counts
from gradtoken.trace.record import record

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of images done, and of all."""
OnError: TypeAlias = Callable[[int, ImageError | TargetError], None]
"""Called with the position of an image that is left out, and the reason."""


@dataclass(frozen=True)
class BatchResult:
    """The result of a batch.

    Args:
        explanations: of all images together, or of each image that has a target.
        skipped: positions of the images without a target among all images, and the reasons.
    """

    explanations: list[Explanation]
    skipped: list[tuple[int, TargetError]]


class Job:
    """The explanation of a list of images by a method; see `explain`.

    All arguments are checked on construction, before any image is read.
    """

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
        self._inputs = Inputs(model.preprocess, images, workers=workers)
        self._targets = targets
        self._rows = per_image(targets, len(self._inputs))
        self._count = 0
        self._prompts = cache(model.read_text) if model.prompts is not None else None

    def run(
        self,
        *,
        combined: bool,
        progress: Progress | None,
        on_error: OnError | None = None,
    ) -> Iterator[Explanation]:
        """Explain the images.

        Args:
            combined: yield an explanation of each batch, to be concatenated: inputs of one shape
                and equal numbers of targets. Otherwise yield an explanation of each image.
            progress: see `explain`.
            on_error: see `explain_each`.
        """
        explain = partial(self._explain, combined=combined, skip=on_error is not None)
        for batch in batches(self._inputs, self._size, one_shape=combined, on_error=on_error):
            for result in run_fitting(batch, self._size, explain):
                for index, error in result.skipped:
                    assert on_error is not None
                    on_error(index, error)
                yield from result.explanations
            if progress is not None:
                progress(batch.indices[-1] + 1, len(self._inputs))

    def check_memory(self, first: Explanation) -> None:
        """Check that the maps of all images fit into memory.

        Args:
            first: the explanation of the first batch.

        Raises:
            TargetError: they do not.
        """
        count = len(self._inputs)
        needed = first.tokens[0].numel() * first.tokens.element_size() * count
        free = free_bytes(self._model.device)
        if needed > free:
            raise TargetError(
                f"maps of {first.tokens.shape[1]} targets for {count} images take "
                f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; take them image by "
                "image with explain_each(), or those of the likeliest classes alone with top_k."
            )

    def _explain(self, batch: Batch, *, combined: bool, skip: bool) -> BatchResult:
        model, method = self._model, self._method
        if batch.indices[0] == 0 and batch.sources[0].kind != "tensor":
            model.preprocess.box(batch.sources[0].size)
        depth = len(model.anatomy.blocks)
        with model.evaluating():
            trace = record(
                model,
                batch.pixels(model),
                start=method.first_block(depth),
                queries=method.needs_queries(),
                affinity=method.affinity_blocks(depth),
            )
            logits = wide(trace.logits)
            _check_logits(model, logits)
            rows = self._resolve(batch, logits)
            skipped = self._without_target(batch, logits, rows)
            if skipped and not skip:
                index, error = skipped[0]
                raise TargetError(f"image {index}: {error}")
            if not any(rows):
                return BatchResult([], skipped)
            targets = self._equal_counts(rows) if combined else pad_targets(rows)
            with torch.no_grad():
                relevance = relevance_of(method, trace, targets)
                _check_relevance(model, method, relevance)
                scores = targets.scores(logits[:, None].expand(-1, targets.count, -1))
                probabilities = targets.probabilities(logits, model.activation)
        self._size.adapt(trace)
        whole = Explanation(
            tokens=relevance.detach().float().unflatten(-1, trace.grid).contiguous(),
            targets=targets,
            labels=targets.labels(model.labels),
            scores=scores,
            probabilities=probabilities,
            sources=batch.sources,
            boxes=Boxes(model.preprocess, batch.sources, trace.patch_grid),
            about=provenance(model, method),
        )
        if combined:
            return BatchResult([whole], skipped)
        pairs = zip(whole, rows, strict=True)
        return BatchResult([trim_targets(item, len(row)) for item, row in pairs if row], skipped)

    def _resolve(self, batch: Batch, logits: Tensor) -> list[list[Target]]:
        """The targets of each image of a batch; none only where no class is above p."""
        rows, model = self._rows, self._model
        resolved = resolve_rows(
            self._targets if rows is None else [rows[index] for index in batch.indices],
            logits,
            model.labels,
            top_k=self._top_k,
            prompts=self._prompts,
            activation=model.activation,
        )
        if not all(resolved) and not isinstance(self._targets, Above):
            raise TargetError("there is nothing to explain: give at least one target.")
        return resolved

    def _without_target(
        self, batch: Batch, logits: Tensor, rows: Sequence[Sequence[Target]]
    ) -> list[tuple[int, TargetError]]:
        """The positions of the images without a class above p, and an error for each."""
        model, above = self._model, self._targets
        return [
            (index, TargetError(above.absence(logits[place], model.activation, model.labels)))
            for place, (index, row) in enumerate(zip(batch.indices, rows, strict=True))
            if isinstance(above, Above) and not row
        ]

    def _equal_counts(self, rows: Sequence[Sequence[Target]]) -> Targets:
        """The targets of a batch, as many for each image as in the batches before it."""
        check_equal_counts({len(row) for row in rows} | {self._count or len(rows[0])})
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
