"""A run from its source to its last shard, begun anew or gone on with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gradtoken.batch.engines.decoding import Decoder
from gradtoken.batch.engines.local import run_local
from gradtoken.batch.engines.worker import Explainer
from gradtoken.batch.job import Job
from gradtoken.batch.plan import FOLDER, Plan, check_plan, items_of, write_plan
from gradtoken.batch.results.folder import Folder
from gradtoken.batch.results.manifest import (
    DATA,
    DONE,
    Journal,
    check_settings,
    read_manifest,
    write_manifest,
)
from gradtoken.batch.results.shards import Writer
from gradtoken.batch.sources.item import Item
from gradtoken.batch.sources.listing import Source, list_items
from gradtoken.errors import GradTokenError, OutputError

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Summary:
    """What a run has done.

    Args:
        out: its folder.
        pictures: in all, also of earlier attempts.
        rows: of the results, one for each picture and target.
        errors: pictures that could not be explained; each is a row that says why.
        shards: files of results.
        resumed: shards that were there already.
        before: pictures that these have.
        seconds: of this attempt, without loading the model.
    """

    out: str
    pictures: int
    rows: int
    errors: int
    shards: int
    resumed: int
    before: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """What to call while a run goes on; each does nothing by default.

    Args:
        planned: with the pictures to do and those done already.
        advanced: with the pictures and the errors of each chunk.
    """

    planned: Callable[[int, int], None] = lambda pictures, done: None
    advanced: Callable[[int, int], None] = lambda pictures, errors: None


def run(
    source: Source | str,
    out: str | os.PathLike[str],
    job: Job | None = None,
    *,
    engine: str = "local",
    resume: bool = False,
    shard_size: int = 1024,
    max_errors: int | None = None,
    threads: int | None = None,
    workers: int | None = None,
    num_gpus: float | None = None,
    address: str | None = None,
    decoders: int | None = None,
    out_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Explain every picture of a source and write the maps as a Parquet data set.

    Args:
        source: a folder, file or pattern, or a `Source` that says more.
        out: a folder that is made; an existing one is refused unless `resume`.
        job: model, method and targets; None explains the top class with the bundled model.
        engine: "local" (one model in this process) or "ray".
        resume: go on with the run in `out`, if there is one.
        shard_size: pictures in each file of results.
        max_errors: more pictures than this with an error stop the run.
        threads: of torch in each worker; None shares the cores among the workers, or takes what
            the run began with. It is part of what makes the last bits of the numbers.
        workers: models at work at once; the local engine has one.
        num_gpus: of each Ray worker; None is one if the job's device is a GPU, else none. Without a
            device that is one if this machine has a GPU, or, behind `ray://`, if the cluster has.
        address: of a running Ray cluster: `HOST:PORT` or `auto` from a machine of it, and
            `ray://HOST:PORT` from elsewhere; then everything, also the listing, happens there.
        decoders: threads (local) or tasks (Ray) that decode pictures at most.
        out_options: for the fsspec file system of `out`.
        progress: is told how far it is.

    Raises:
        GradTokenError: says what is wrong; finished shards are kept.

    Example:
        >>> gradtoken.batch.run("photos", "maps", gradtoken.batch.Job(targets=Asked(top_k=3)))
    """
    source = Source(source) if isinstance(source, str) else source
    job, told = job or Job(), progress or Progress()
    _check(engine, workers, num_gpus, address)
    _check_counts(shard_size=shard_size, workers=workers, threads=threads, decoders=decoders)
    _check_counts(0, num_gpus=num_gpus, max_errors=max_errors)
    if address is not None and address.startswith("ray://"):
        from gradtoken.batch.engines.ray_client import run_there

        if Folder(str(out), out_options).local:
            raise OutputError(
                f"a cluster reached through {address} cannot read {out} on this machine; give a "
                "folder that both reach, such as s3://bucket/folder."
            )
        asked = {
            "source": source, "out": str(out), "job": job, "engine": engine, "resume": resume,
            "shard_size": shard_size, "max_errors": max_errors, "threads": threads,
            "workers": workers, "num_gpus": num_gpus, "decoders": decoders,
            "out_options": out_options,
        }  # fmt: skip
        return run_there(address, asked, told)
    folder = Folder(os.fspath(out), out_options)
    columns = replace(source.columns, targets=job.targets.column)
    source = replace(source, columns=columns)
    job = replace(job, image_column=columns.image, source_options=source.options)
    with folder.locked(), _same_threads():
        found = _existing(folder, resume)
        job = replace(job, threads=_threads(found, engine, workers) if threads is None else threads)
        on_gpu_elsewhere = engine == "ray" and bool(num_gpus)
        model = job.load("cpu" if on_gpu_elsewhere else None)
        identity = job.identity(model)
        if engine == "ray" and num_gpus is None:
            num_gpus = 1.0 if model.device.type == "cuda" else 0.0
        device = "cuda" if num_gpus else model.device.type
        settings = {
            "source": source.settings(),
            **identity,
            **job.settings(),
            "device": device,
            "shard_size": shard_size,
        }
        explainer = None if on_gpu_elsewhere else Explainer(job, identity, model)
        plan = _plan(folder, source, settings, found, shard_size)
        journal = Journal.read(folder, plan)
        resumed = len(journal.done)
        pending = np.array([s for s in range(plan.shards) if s not in journal.done], np.int64)
        done = sum(d.pictures for d in journal.done.values())
        told.planned(plan.pictures, done)
        begun = time.monotonic()
        decoder = Decoder(
            model.preprocess, job.batch_size, job.max_pixels, job.image_column, job.source_options
        )
        load = partial(_load, folder, plan)
        try:
            writer = Writer(folder, journal, max_errors, told.advanced)
            if not len(pending):
                pass
            elif engine == "local":
                assert explainer is not None
                run_local(
                    explainer,
                    decoder,
                    pending.tolist(),
                    load,
                    writer.add,
                    decoders=decoders or min(4, os.cpu_count() or 1),
                )
            else:
                from gradtoken.batch.engines.ray_data import Cluster, run_ray

                del explainer, model
                cluster = Cluster(address, workers, num_gpus or 0.0, decoders)
                run_ray(job, identity, decoder, pending, load, writer.add, cluster)
        finally:
            journal.flush()
        _check_whole(journal, plan)
    return Summary(
        os.fspath(out),
        plan.pictures,
        sum(d.rows for d in journal.done.values()),
        sum(d.errors for d in journal.done.values()),
        plan.shards,
        resumed,
        done,
        time.monotonic() - begun,
    )


def _check(engine: str, workers: int | None, num_gpus: float | None, address: str | None) -> None:
    if engine not in ENGINES:
        raise GradTokenError(f"--engine {engine!r} is unknown; it can be local or ray.")
    if engine == "local" and (address or num_gpus or (workers is not None and workers > 1)):
        raise GradTokenError(
            "the local engine has one model and no cluster; use --engine ray for several workers, "
            "--num-gpus or --address."
        )


def _check_counts(least: int = 1, **given: float | None) -> None:
    for name, value in given.items():
        if value is not None and value < least:
            raise GradTokenError(f"{name} is {value!r}; it must be {least} or more.")


def _existing(folder: Folder, resume: bool) -> tuple[dict[str, Any], Plan] | None:
    """The run in a folder, if it is to be gone on with.

    Raises:
        OutputError: if something else is there, or a run that is not to be gone on with.
    """
    found = read_manifest(folder)
    if found is not None and not resume:
        raise OutputError(
            f"{folder.name} holds a run already; pass --resume to go on with it, or another --out."
        )
    if found is None and not folder.is_empty() and not (resume and folder.sizes(FOLDER)):
        raise OutputError(
            f"{folder.name} holds something else than a run of gradtoken batch; give another --out."
        )
    return found


@contextmanager
def _same_threads() -> Iterator[None]:
    """Leave torch's number of threads as it was."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _threads(found: tuple[dict[str, Any], Plan] | None, engine: str, workers: int | None) -> int:
    if found is not None and isinstance(found[0].get("threads"), int):
        return int(found[0]["threads"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if engine == "local":
        return cores or 1
    return max(1, (cores or 1) // (workers or max(1, (cores or 1) // 2)))


def _plan(
    folder: Folder,
    source: Source,
    settings: dict[str, Any],
    found: tuple[dict[str, Any], Plan] | None,
    shard_size: int,
) -> Plan:
    """The plan of the run in the folder if its source is as it was, or a new one."""
    for part in (FOLDER, DATA, DONE, ""):
        folder.sweep(part)
    if found is not None:
        before, plan = found
        check_settings(before, settings, folder)
        check_plan(folder, list_items(source), plan)
        return plan
    plan = write_plan(folder, list_items(source), shard_size, source.columns.id is not None)
    write_manifest(folder, settings, plan)
    return plan


def _load(folder: Folder, plan: Plan, shard: int) -> tuple[int, list[Item]]:
    return shard * plan.shard_size, items_of(folder, plan, shard)


def _check_whole(journal: Journal, plan: Plan) -> None:
    missing = [s for s in range(plan.shards) if s not in journal.done]
    if missing:
        raise OutputError(
            f"{len(missing)} shards were not finished, the first being {missing[0]}; run again "
            "with --resume."
        )
