"""A run from its source to its last shard, from the start or resumed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from gradtoken.batch.engines.decoding import Decoder
from gradtoken.batch.engines.local import run_local
from gradtoken.batch.engines.worker import Explainer
from gradtoken.batch.job import Job, Progress, Summary
from gradtoken.batch.plan import FOLDER, Plan, check_plan, items_of, write_plan
from gradtoken.batch.results.folder import Folder
from gradtoken.batch.results.manifest import (
    DATA,
    DONE,
    Journal,
    Manifest,
    check_settings,
    read_manifest,
    write_manifest,
)
from gradtoken.batch.results.shards import ShardWriter
from gradtoken.batch.settings import RunOptions, RunSettings
from gradtoken.batch.sources.item import Item
from gradtoken.batch.sources.listing import Source, list_items
from gradtoken.errors import OutputError

_RAY_CLIENT = "ray://"


def run(
    source: Source | str,
    out: str | os.PathLike[str],
    job: Job | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[RunOptions],
) -> Summary:
    """Explain every image of a source and write the maps as a Parquet data set.

    Args:
        source: a folder, file or pattern, or a `Source` with more details.
        out: folder of the results, which is made; one that exists raises unless `resume`.
        job: model, method and targets; None explains the top class with the bundled model.
        progress: callbacks while the run goes on.

    Keyword Args:
        engine (str): "local" (the default; one model in this process) or "ray".
        resume (bool): continue the run in `out`, if there is one. Default False.
        shard_size (int): images in each file of results. Default 1024.
        max_errors (int | None): more images than this with an error stop the run. Default None.
        threads (int | None): of torch in each worker. None shares the cores among the workers, or
            takes what the run began with. The last bits of the results depend on it.
        workers (int | None): number of models at work at once; the local engine has one.
        num_gpus (float | None): of each Ray worker. None is one if the job's device is a GPU, else
            none; without a device, one if this machine has a GPU, or, behind `ray://`, the cluster.
        address (str | None): of a running Ray cluster: `HOST:PORT` or `auto` from one of its
            machines, and `ray://HOST:PORT` from elsewhere; then all of the run happens there.
        decoders (int | None): largest number of threads (local) or tasks (Ray) that decode images.
        out_options (Mapping[str, Any] | None): for the fsspec file system of `out`.

    Raises:
        GradTokenError: says what is wrong; finished shards are kept.

    Example:
        >>> gradtoken.batch.run("photos", "maps", gradtoken.batch.Job(targets=TargetSpec(top_k=3)))
    """
    source = Source(source) if isinstance(source, str) else source
    settings = RunSettings(source, os.fspath(out), job or Job(), **options)
    settings.check()
    progress = progress or Progress()
    if settings.address is not None and settings.address.startswith(_RAY_CLIENT):
        return _run_on_cluster(settings, progress)
    return execute(settings, progress)


def _run_on_cluster(settings: RunSettings, progress: Progress) -> Summary:
    from gradtoken.batch.engines.ray_client import run_as_task

    if Folder(settings.out, settings.out_options).local:
        raise OutputError(
            f"a cluster reached through {settings.address} cannot read {settings.out} on this "
            "machine; give a folder that both reach, such as s3://bucket/folder."
        )
    return run_as_task(execute, settings, progress)


def execute(settings: RunSettings, progress: Progress) -> Summary:
    """Do a run from this process.

    Raises:
        GradTokenError: says what is wrong; finished shards are kept.
    """
    folder = Folder(settings.out, settings.out_options)
    settings = settings.with_columns()
    with folder.locked(), _torch_threads_restored():
        manifest = _read_earlier_run(folder, settings.resume)
        threads = _choose_threads(settings, manifest)
        settings = replace(settings, job=replace(settings.job, threads=threads))
        worker = _prepare_worker(settings)
        plan = _make_plan(folder, settings.source, _recorded(settings, worker), manifest)
        journal = Journal.read(folder, plan)
        resumed, before = len(journal.done), sum(done.images for done in journal.done.values())
        progress.planned(plan.images, before)
        begun = time.monotonic()
        try:
            writer = ShardWriter(folder, journal, settings.max_errors, progress.advanced)
            _explain_pending(settings, worker, plan, writer)
        finally:
            journal.flush()
        _check_complete(journal, plan)
    return Summary(
        out=settings.out,
        images=plan.images,
        rows=sum(done.rows for done in journal.done.values()),
        errors=sum(done.errors for done in journal.done.values()),
        shards=plan.shards,
        resumed=resumed,
        before=before,
        seconds=time.monotonic() - begun,
    )


@contextmanager
def _torch_threads_restored() -> Iterator[None]:
    """Restore torch's number of threads at the end."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read_earlier_run(folder: Folder, resume: bool) -> Manifest | None:
    """The manifest of the run in a folder, if there is one to resume.

    Raises:
        OutputError: the folder holds something else, or a run that is not to be resumed.
    """
    manifest = read_manifest(folder)
    if manifest is not None and not resume:
        raise OutputError(
            f"{folder.name} holds a run already; pass --resume to go on with it, or another --out."
        )
    if manifest is None and not folder.is_empty() and not (resume and folder.sizes(FOLDER)):
        raise OutputError(
            f"{folder.name} holds something else than a run of gradtoken batch; give another --out."
        )
    return manifest


def _choose_threads(settings: RunSettings, manifest: Manifest | None) -> int:
    """Those requested, those of the earlier run, or each worker's share of the cores."""
    if settings.threads is not None:
        return settings.threads
    if manifest is not None and isinstance(manifest.settings.get("threads"), int):
        return int(manifest.settings["threads"])
    affinity = hasattr(os, "sched_getaffinity")
    cores = (len(os.sched_getaffinity(0)) if affinity else os.cpu_count()) or 1
    if settings.engine == "local":
        return cores
    return max(1, cores // (settings.workers or max(1, cores // 2)))


@dataclass(frozen=True)
class _Worker:
    """What the workers of a run need.

    Args:
        identity: of the model and method, which every worker must have.
        decoder: prepares images for the model.
        device: type of the device that computes.
        num_gpus: of each Ray worker.
        explainer: the loaded model of the local engine.
    """

    identity: dict[str, Any]
    decoder: Decoder
    device: str
    num_gpus: float
    explainer: Explainer | None


def _prepare_worker(settings: RunSettings) -> _Worker:
    """Load the model and check that it, the method and the targets work together.

    Workers on GPUs do that check themselves, since this machine may have none.
    """
    job, engine, num_gpus = settings.job, settings.engine, settings.num_gpus
    on_other_gpus = engine == "ray" and bool(num_gpus)
    model = job.load("cpu" if on_other_gpus else None)
    identity = job.identity(model)
    if engine == "ray" and num_gpus is None:
        num_gpus = 1.0 if model.device.type == "cuda" else 0.0
    explainer = None if on_other_gpus else Explainer(job, identity, model)
    return _Worker(
        identity=identity,
        decoder=Decoder(
            model.preprocess, job.batch_size, job.max_pixels, job.image_column, job.source_options
        ),
        device="cuda" if num_gpus else model.device.type,
        num_gpus=num_gpus or 0.0,
        explainer=explainer if engine == "local" else None,
    )


def _recorded(settings: RunSettings, worker: _Worker) -> dict[str, Any]:
    """The settings in the manifest, with which a run can be resumed."""
    return {
        "source": settings.source.settings(),
        **worker.identity,
        **settings.job.settings(),
        "device": worker.device,
        "shard_size": settings.shard_size,
    }


def _make_plan(
    folder: Folder, source: Source, recorded: dict[str, Any], manifest: Manifest | None
) -> Plan:
    """The plan of an earlier run, if settings and source are the same, or a new one."""
    for part in (FOLDER, DATA, DONE, ""):
        folder.remove_temporary_files(part)
    if manifest is not None:
        check_settings(manifest.settings, recorded, folder)
        check_plan(folder, list_items(source), manifest.plan)
        return manifest.plan
    unique = source.columns.id is not None
    plan = write_plan(folder, list_items(source), recorded["shard_size"], unique)
    write_manifest(folder, recorded, plan)
    return plan


def _explain_pending(
    settings: RunSettings, worker: _Worker, plan: Plan, writer: ShardWriter
) -> None:
    """Explain the shards that are not done yet."""
    pending = np.array([s for s in range(plan.shards) if s not in writer.journal.done], np.int64)
    load = partial(_load_shard, writer.folder, plan)
    if not len(pending):
        return
    if worker.explainer is not None:
        decoders = settings.decoders or min(4, os.cpu_count() or 1)
        shards = pending.tolist()
        run_local(worker.explainer, worker.decoder, shards, load, writer.add, decoders=decoders)
        return
    from gradtoken.batch.engines.ray_data import Cluster, run_ray

    cluster = Cluster(settings.address, settings.workers, worker.num_gpus, settings.decoders)
    run_ray(settings.job, worker.identity, worker.decoder, pending, load, writer.add, cluster)


def _load_shard(folder: Folder, plan: Plan, shard: int) -> tuple[int, list[Item]]:
    """The number of a shard's first image in the run, and the shard's items."""
    return shard * plan.shard_size, items_of(folder, plan, shard)


def _check_complete(journal: Journal, plan: Plan) -> None:
    missing = [s for s in range(plan.shards) if s not in journal.done]
    if missing:
        raise OutputError(
            f"{len(missing)} shards were not finished, the first being {missing[0]}; run again "
            "with --resume."
        )
