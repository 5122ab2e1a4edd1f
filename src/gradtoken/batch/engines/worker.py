"""From batches of model input to rows of results, where a model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gradtoken.batch.engines.decoding import Chunk, Entry
from gradtoken.batch.job import Job, fingerprint
from gradtoken.batch.results.schema import as_shares, to_ipc, to_table
from gradtoken.errors import GradTokenError, ModelError, TargetError
from gradtoken.explaining import explain_each
from gradtoken.images.crop_box import Box

if TYPE_CHECKING:
    from gradtoken.explanation.explanation import Explanation
    from gradtoken.models import Model


@dataclass(frozen=True)
class Explained:
    """The rows of one chunk.

    Args:
        shard: the chunk's shard.
        number: the chunk's number in its shard.
        count: how many chunks the shard has.
        rows: an Arrow table, as the bytes of `to_ipc`.
        pictures: how many it had.
        errors: how many of them could not be explained.
        problem: what the first of these says.
    """

    shard: int
    number: int
    count: int
    rows: bytes
    pictures: int
    errors: int
    problem: str | None


class Explainer:
    """One model that explains chunk after chunk.

    Args:
        job: what to do.
        identity: what the weights and all else must be; None takes what is found.
        model: one that is loaded already.

    Raises:
        GradTokenError: if the model, the method or the targets cannot be served, found out on a
            picture of noise, or if the model is not the one that `identity` names.
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
        self._try()

    def _try(self) -> None:
        """Explain noise, so that what no picture could mend is refused before the work."""
        targets = None if self._job.targets.above is not None else self._shared
        if self._job.targets.column is not None:
            targets = (
                self._job.targets.own('"noise"', self.model.labels, True) if self._prompts else None
            )
        self._explain(self.model.preprocess.sample()[None], targets)

    def __call__(self, chunk: Chunk) -> Explained:
        """The rows of a chunk; a picture that fails is a row with its error."""
        errors = {n: e.error for n, e in enumerate(chunk.entries) if e.error is not None}
        rows: dict[int, list[dict[str, Any]]] = {}
        for places, targets in self._groups(chunk, errors):
            self._serve(chunk, places, targets, rows, errors)
        for place, error in errors.items():
            rows[place] = [{"rank": 0, "error": error}]
        whole = [
            {**self._common(chunk, place), **row}
            for place in range(len(chunk.entries))
            for row in rows[place]
        ]
        return Explained(
            chunk.shard,
            chunk.number,
            chunk.count,
            to_ipc(to_table(whole)),
            len(chunk.entries),
            len(errors),
            f"{chunk.entries[min(errors)].item.id}: {errors[min(errors)]}" if errors else None,
        )

    def _groups(self, chunk: Chunk, errors: dict[int, str]) -> list[tuple[list[int], Any]]:
        """Places in the chunk that make one batch: the same shape and as many targets."""
        groups: dict[Any, list[int]] = {}
        own: dict[int, list[Any]] = {}
        for place, entry in enumerate(chunk.entries):
            if entry.pixels is None:
                continue
            if self._job.targets.column is not None:
                try:
                    own[place] = self._job.targets.own(
                        entry.item.targets, self.model.labels, self._prompts
                    )
                except TargetError as error:
                    errors[place] = " ".join(str(error).split())
                    continue
            key = (entry.pixels.shape, len(own.get(place, ())))
            groups.setdefault(key, []).append(place)
        return [
            (places, [own[p] for p in places] if places[0] in own else self._shared)
            for places in groups.values()
        ]

    def _serve(
        self,
        chunk: Chunk,
        places: list[int],
        targets: Any,
        rows: dict[int, list[dict[str, Any]]],
        errors: dict[int, str],
    ) -> None:
        """Explain some pictures together, or one by one where together they fail."""
        pixels = torch.from_numpy(_stacked([chunk.entries[place] for place in places]))
        try:
            found = self._explain(pixels, targets)
        except GradTokenError as error:
            if len(places) == 1:
                errors[places[0]] = " ".join(str(error).split())
                return
            for n, place in enumerate(places):
                one = [targets[n]] if self._job.targets.column is not None else targets
                self._serve(chunk, [place], one, rows, errors)
            return
        for place, one in zip(places, found, strict=True):
            if isinstance(one, GradTokenError):
                errors[place] = " ".join(str(one).split())
            else:
                rows[place] = _rows(one, chunk.entries[place])

    def _explain(self, pixels: torch.Tensor, targets: Any) -> list[Explanation | GradTokenError]:
        """What comes of each image, in order: an error where no class is above p."""
        refused: dict[int, GradTokenError] = {}
        explanations = explain_each(
            self.model,
            pixels.to(self.model.device, self.model.dtype),
            targets,
            method=self._method,
            top_k=1 if self._job.targets.top_k is None else self._job.targets.top_k,
            batch_size=len(pixels),
            on_error=refused.__setitem__,
        )
        made = list(explanations)
        others = iter(made)
        return [refused[n] if n in refused else next(others) for n in range(len(pixels))]

    def _common(self, chunk: Chunk, place: int) -> dict[str, Any]:
        entry = chunk.entries[place]
        width, height = entry.size or (None, None)
        return {
            **self._constant,
            "index": chunk.first + place,
            "id": entry.item.id,
            "source": entry.item.source,
            "sha256": entry.sha256,
            "width": width,
            "height": height,
        }


def _stacked(entries: list[Entry]) -> Any:
    import numpy as np

    return np.stack([entry.pixels for entry in entries if entry.pixels is not None])


def _rows(found: Explanation, entry: Entry) -> list[dict[str, Any]]:
    tokens = found.tokens[0].detach().cpu().numpy()
    evidence = found.evidence[0]
    scores, shares = found.scores[0].tolist(), found.probabilities[0].tolist()
    box = None if entry.box is None else [*found.boxes.grid.on(Box(*entry.box))]
    rows = []
    for rank, target in enumerate(found.targets.rows[0]):
        scale, relevance = as_shares(tokens[rank])
        about = target.to_dict()
        rows.append(
            {
                "rank": rank,
                "target_id": about.get("id"),
                "target_name": found.labels[0][rank],
                "logit": scores[rank],
                "probability": None if shares[rank] != shares[rank] else shares[rank],
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
