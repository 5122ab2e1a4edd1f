"""The settings of a run: what is explained, where, and by which engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from gradtoken.batch.job import Job
from gradtoken.batch.sources.listing import Source
from gradtoken.errors import GradTokenError

ENGINES = ("local", "ray")


class RunOptions(TypedDict, total=False):
    """The optional arguments of `run`, which are fields of `RunSettings`."""

    engine: str
    resume: bool
    shard_size: int
    max_errors: int | None
    threads: int | None
    workers: int | None
    num_gpus: float | None
    address: str | None
    decoders: int | None
    out_options: Mapping[str, Any] | None


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run; see `run`.

    Args:
        source: where the images are.
        out: folder of the results, a path or a URL.
        job: model, method and targets.
        engine: "local" or "ray".
        resume: continue the run in `out`, if there is one.
        shard_size: images in each file of results.
        max_errors: more images than this with an error stop the run.
        threads: of torch in each worker; None chooses.
        workers: number of models at work at once; None chooses.
        num_gpus: of each Ray worker; None chooses.
        address: of a running Ray cluster.
        decoders: largest number of threads or tasks that decode images.
        out_options: for the fsspec file system of `out`.
    """

    source: Source
    out: str
    job: Job = field(default_factory=Job)
    engine: str = "local"
    resume: bool = False
    shard_size: int = 1024
    max_errors: int | None = None
    threads: int | None = None
    workers: int | None = None
    num_gpus: float | None = None
    address: str | None = None
    decoders: int | None = None
    out_options: Mapping[str, Any] | None = field(default=None, repr=False)

    def check(self) -> None:
        """Check what can be checked before anything is read.

        Raises:
            GradTokenError: names the setting and what it can be.
        """
        if self.engine not in ENGINES:
            raise GradTokenError(f"--engine {self.engine!r} is unknown; it can be local or ray.")
        several = self.workers is not None and self.workers > 1
        if self.engine == "local" and (self.address or self.num_gpus or several):
            raise GradTokenError(
                "the local engine has one model and no cluster; use --engine ray for several "
                "workers, --num-gpus or --address."
            )
        for name in ("shard_size", "workers", "threads", "decoders"):
            self._check_at_least(1, name)
        for name in ("num_gpus", "max_errors"):
            self._check_at_least(0, name)

    def _check_at_least(self, least: int, name: str) -> None:
        value = getattr(self, name)
        if value is not None and value < least:
            raise GradTokenError(f"{name} is {value!r}; it must be {least} or more.")

    def with_columns(self) -> RunSettings:
        """The settings whose source knows the targets' column, and whose job the source's."""
        columns = replace(self.source.columns, targets=self.job.targets.column)
        return replace(
            self,
            source=replace(self.source, columns=columns),
            job=replace(self.job, image_column=columns.image, source_options=self.source.options),
        )
