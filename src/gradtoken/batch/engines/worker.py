"""The worker: from batches of model input to rows of results."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from gradtoken.batch.engines.decoding import Chunk, DecodedImage
from gradtoken.batch.job import Job, fingerprint
from gradtoken.batch.results.schema import as_shares, to_ipc, to_table
from gradtoken.batch.results.shards import ChunkRows
from gradtoken.errors import GradTokenError, ModelError, TargetError
from gradtoken.explaining import explain_each
from gradtoken.images.box import Box

if TYPE_CHECKING:
    from gradtoken.explanation.explanation import Explanation
    from gradtoken.models import Model


class Explainer:
    """One model that explains chunk after chunk.

    Args:
        job: model, method and targets.
        identity: the `Job.identity` that the run began with; None accepts any.
        model: the job's model, if it is loaded already.

    Raises:
        GradTokenError: the model is not that of `identity`, or model, method and targets do not
            work together. This is found by explaining an image of noise.
    """

    def __init__(
        self, job: Job, identity: dict[str, Any] | None = None, model: Model | None = None
    ) -> None:
        torch.set_num_threads(job.threads)
        self.model = model or job.load()
        self.identity = job.identity(self.model)
        if identity is not None and identity != self.identity:
            names = [name for name, value in self.identity.items() if identity.get(name) != value]
            raise ModelError(
                f"a worker has another {' and '.join(names)} than the run began with; give all "
                "machines the same files and versions."
            )
        self._job = job
        self._method = job.make_method()
        self._prompts = self.model.prompts is not None
        job.targets.check(self.model.labels, self._prompts, job.model, self.model.activation)
        self._shared = job.targets.shared(self.model.labels)
        self._constant = {
            "model": job.model,
            "method": job.method,
            "fingerprint": fingerprint(self.identity),
        }
        self._check_by_running()

    def _check_by_running(self) -> None:
        """Explain noise, so that what fails for every image raises before the work."""
        targets = None if self._job.targets.above is not None else self._shared
        if self._job.targets.column is not None:
            targets = (
                self._job.targets.own('"noise"', self.model.labels, True) if self._prompts else None
            )
        self._explain(self.model.preprocess.sample()[None], targets)

    def __call__(self, chunk: Chunk) -> ChunkRows:
        """The rows of a chunk; an image that fails is a row with its error."""
        errors = {n: i.error for n, i in enumerate(chunk.images) if i.error is not None}
        rows: dict[int, list[dict[str, Any]]] = {}
        for positions, targets in self._batches(chunk, errors):
            self._explain_batch(chunk, positions, targets, rows, errors)
        for position, error in errors.items():
            rows[position] = [{"rank": 0, "error": error}]
        table = [
            {**self._image_columns(chunk, position), **row}
            for position in range(len(chunk.images))
            for row in rows[position]
        ]
        first = min(errors, default=None)
        return ChunkRows(
            shard=chunk.shard,
            number=chunk.number,
            count=chunk.count,
            rows=to_ipc(to_table(table)),
            images=len(chunk.images),
            errors=len(errors),
            problem=None if first is None else f"{chunk.images[first].item.id}: {errors[first]}",
        )

    def _batches(self, chunk: Chunk, errors: dict[int, str]) -> list[tuple[list[int], Any]]:
        """Positions in the chunk with the same input shape and number of targets, and targets."""
        groups: dict[Any, list[int]] = {}
        own: dict[int, list[Any]] = {}
        for position, image in enumerate(chunk.images):
            if image.pixels is None:
                continue
            if self._job.targets.column is not None:
                try:
                    own[position] = self._job.targets.own(
                        image.item.targets, self.model.labels, self._prompts
                    )
                except TargetError as error:
                    errors[position] = str(error)
                    continue
            key = (image.pixels.shape, len(own.get(position, ())))
            groups.setdefault(key, []).append(position)
        return [
            (positions, [own[p] for p in positions] if positions[0] in own else self._shared)
            for positions in groups.values()
        ]

    def _explain_batch(
        self,
        chunk: Chunk,
        positions: list[int],
        targets: Any,
        rows: dict[int, list[dict[str, Any]]],
        errors: dict[int, str],
    ) -> None:
        """Explain images in one batch, or individually if the batch fails."""
        pixels = torch.from_numpy(_stack([chunk.images[position] for position in positions]))
        try:
            results = self._explain(pixels, targets)
        except GradTokenError as error:
            if len(positions) == 1:
                errors[positions[0]] = str(error)
                return
            for n, position in enumerate(positions):
                own = [targets[n]] if self._job.targets.column is not None else targets
                self._explain_batch(chunk, [position], own, rows, errors)
            return
        for position, result in zip(positions, results, strict=True):
            if isinstance(result, GradTokenError):
                errors[position] = str(result)
            else:
                rows[position] = _rows(result, chunk.images[position])

    def _explain(self, pixels: torch.Tensor, targets: Any) -> list[Explanation | GradTokenError]:
        """The explanation of each image, in order, or its error where no class is above p."""
        errors: dict[int, GradTokenError] = {}
        explanations = explain_each(
            self.model,
            pixels.to(self.model.device, self.model.dtype),
            targets,
            method=self._method,
            top_k=1 if self._job.targets.top_k is None else self._job.targets.top_k,
            batch_size=len(pixels),
            on_error=errors.__setitem__,
        )
        explained = iter(list(explanations))  # only then are all errors known
        return [errors[n] if n in errors else next(explained) for n in range(len(pixels))]

    def _image_columns(self, chunk: Chunk, position: int) -> dict[str, Any]:
        """The columns that all rows of an image share."""
        image = chunk.images[position]
        width, height = image.size or (None, None)
        return {
            **self._constant,
            "index": chunk.first + position,
            "id": image.item.id,
            "source": image.item.source,
            "sha256": image.sha256,
            "width": width,
            "height": height,
        }


def _stack(images: list[DecodedImage]) -> Any:
    import numpy as np

    return np.stack([image.pixels for image in images if image.pixels is not None])


def _rows(explanation: Explanation, image: DecodedImage) -> list[dict[str, Any]]:
    """The columns of each target's map, of an explanation of one image."""
    tokens = explanation.tokens[0].detach().cpu().numpy()
    evidence = explanation.evidence[0]
    logits = explanation.scores[0].tolist()
    probabilities = explanation.probabilities[0].tolist()
    box = None if image.box is None else [*explanation.boxes.grid.on(Box(*image.box))]
    rows = []
    for rank, target in enumerate(explanation.targets.rows[0]):
        scale, relevance = as_shares(tokens[rank])
        probability = probabilities[rank]
        rows.append(
            {
                "rank": rank,
                "target_id": target.to_dict().get("id"),
                "target_name": explanation.labels[0][rank],
                "logit": logits[rank],
                "probability": None if math.isnan(probability) else probability,
                "grid_height": tokens.shape[-2],
                "grid_width": tokens.shape[-1],
                "box": box,
                "scale": scale,
                "relevance": relevance,
                "total": float(evidence.total[rank]),
                "positive": float(evidence.positive[rank]),
                "evidence": not bool(evidence.none[rank]),
            }
        )
    return rows
