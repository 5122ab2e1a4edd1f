"""The Ray engine: Ray Data streams shards through decoding tasks and actors with a model each."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradtoken.batch.engines.decoding import Decoder
from gradtoken.batch.engines.local import Load
from gradtoken.batch.engines.worker import Explainer
from gradtoken.batch.job import Job
from gradtoken.batch.results.shards import ChunkRows
from gradtoken.errors import GradTokenError, ModelError
from gradtoken.extras import needs

_MAX_BLOCKS = 20_000
_OBJECT_BYTES = 1 << 30
"""Memory for chunks in a cluster that is started here; decoding waits when it is full."""
_PREFIX = "gradtoken-ray-"
_LOOPBACK = ("127.0.0.1:", "localhost:")
_DECODING_CPUS = 0.5
"""Two decoding tasks for each core; a fraction also keeps Ray from fusing them with the actors."""


@dataclass(frozen=True)
class Cluster:
    """Where the Ray engine runs.

    Args:
        address: of a running cluster (`HOST:PORT` or `auto`); None starts one on this machine that
            ends with the run.
        workers: number of model actors; None for as many as the GPUs allow, else one for two cores.
        num_gpus: of each worker; with a fraction several share one.
        decoders: largest number of decoding tasks at a time; None leaves it to Ray.
    """

    address: str | None = None
    workers: int | None = None
    num_gpus: float = 0.0
    decoders: int | None = None


def run_ray(
    job: Job,
    identity: dict[str, Any],
    decoder: Decoder,
    shards: np.ndarray[Any, Any],
    load: Load,
    add: Callable[[ChunkRows], None],
    cluster: Cluster,
) -> None:
    """Explain shards.

    A task or actor that is lost with its process or machine is started again by Ray. Decoding waits
    while the actors are busy.

    Args:
        job: model, method and targets.
        identity: of the model and method, which every worker must have.
        decoder: reads and decodes images.
        shards: their numbers, int64.
        load: the items of a shard.
        add: called with the rows of each chunk.
        cluster: where to run.

    Raises:
        GradTokenError: no cluster, no room for a worker, or what a worker raised.
    """
    set_environment(cluster.address)
    ray, data = needs("ray"), needs("ray.data")
    with _session(ray, job, cluster) as workers:
        _configure(data.DataContext.get_current())
        lister = _lister(ray, load)
        blocks = min(len(shards), _MAX_BLOCKS)
        numbers = ray.put(shards)
        stream = (
            data.range(len(shards), override_num_blocks=blocks)
            .map_batches(
                _decode,
                fn_kwargs={"decoder": decoder, "numbers": [numbers], "lister": lister},
                batch_size=1,
                num_cpus=_DECODING_CPUS,
                **({"concurrency": cluster.decoders} if cluster.decoders else {}),
            )
            .map_batches(
                ModelActor,
                fn_constructor_kwargs={"job": job, "identity": identity},
                batch_size=1,
                compute=data.ActorPoolStrategy(size=workers),
                num_cpus=1 if cluster.num_gpus else job.threads,
                num_gpus=cluster.num_gpus,
            )
        )
        try:
            for batch in stream.iter_batches(batch_size=None, prefetch_batches=1):
                for content in batch["explained"]:
                    result = pickle.loads(content)  # noqa: S301
                    if isinstance(result, GradTokenError):
                        raise result
                    add(result)
        except ray.exceptions.RayError as error:
            raise GradTokenError(cause(error)) from None


def _configure(context: Any) -> None:
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # each chunk is a block, and can go to any actor
    context.print_on_execution_start = False


def _decode(
    batch: dict[str, Any], *, decoder: Decoder, numbers: list[Any], lister: Any
) -> Iterator[dict[str, Any]]:
    ray = needs("ray")
    shards = ray.get(numbers[0])
    for index in batch["id"]:
        shard = int(shards[index])
        try:
            for chunk in decoder(shard, *ray.get(lister.items.remote(shard))):
                yield {"chunk": _cell(chunk)}
        except GradTokenError as error:
            yield {"chunk": _cell(error)}


class ModelActor:
    """A model in its own process. Errors are results, since Ray retries what raises."""

    def __init__(self, job: Job, identity: dict[str, Any]) -> None:
        self._error: GradTokenError | None = None
        try:
            self._explainer = Explainer(job, identity)
        except GradTokenError as error:
            self._error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = []
        for content in batch["chunk"]:
            chunk = pickle.loads(content)  # noqa: S301
            if self._error is not None or isinstance(chunk, GradTokenError):
                results.append(self._error or chunk)
            else:
                results.append(self._explainer(chunk))
        return {"explained": np.array([pickle.dumps(item) for item in results], dtype=object)}


def _cell(item: Any) -> np.ndarray[Any, Any]:
    """One cell of a column, as bytes."""
    return np.array([pickle.dumps(item, protocol=5)], dtype=object)


def _lister(ray: Any, load: Load) -> Any:
    """An actor on the driver's machine, the only one sure to see the run's listing."""

    class Lister:
        def items(self, shard: int) -> Any:
            return load(shard)

    here = ray.get_runtime_context().get_node_id()
    strategies = needs("ray.util.scheduling_strategies")
    same_node = strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Lister).options(**options, scheduling_strategy=same_node).remote()


@contextmanager
def _session(ray: Any, job: Job, cluster: Cluster) -> Iterator[int]:
    """Connect to Ray or start it, and yield the number of workers."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield _count_workers(ray, job, cluster)
        return
    temporary = None
    try:
        if cluster.address:
            connect(ray, address=cluster.address)
        else:
            _remove_abandoned_folders()
            temporary = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
            cores = os.cpu_count() or 1
            workers = cluster.workers or max(1, cores // 2)
            connect(
                ray,
                num_cpus=max(cores, workers * job.threads) + 1,
                include_dashboard=False,
                object_store_memory=_OBJECT_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=temporary,
            )
        yield _count_workers(ray, job, cluster)
    finally:
        ray.shutdown()
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def connect(ray: Any, **options: Any) -> None:
    """Start Ray, or reach a cluster.

    Raises:
        GradTokenError: says why that is not possible.
    """
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (ImportError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise GradTokenError(f"Ray cannot be started or reached: {_last_line(error)}") from None


def set_environment(address: str | None) -> None:
    """Set the variables that Ray reads while it is imported, unless they are set."""
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    if address is None or address.startswith(_LOOPBACK):
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # or it listens on other interfaces
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _remove_abandoned_folders() -> None:
    """Remove the temporary folders of runs that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        number = path.name.removeprefix(_PREFIX).partition("-")[0]
        if number.isdecimal() and not _alive(int(number)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _count_workers(ray: Any, job: Job, cluster: Cluster) -> int:
    """The number of actors to start.

    Raises:
        ModelError: the cluster has no room for one, or for those requested.
    """
    resources = ray.cluster_resources()
    if cluster.num_gpus:
        most = int(resources.get("GPU", 0) / cluster.num_gpus + 1e-9)
    else:
        most = int((resources.get("CPU", 0) - _DECODING_CPUS) // job.threads)
    if most < 1 or (cluster.workers or 0) > most:
        cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        raise ModelError(
            f"the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs, which is room for {most} "
            f"workers of {job.threads} threads and {cluster.num_gpus:g} GPUs; ask for fewer with "
            "--workers, --threads or --num-gpus."
        )
    if cluster.workers:
        return cluster.workers
    return most if cluster.num_gpus else max(1, most // 2)


def cause(error: Exception) -> str:
    """The message for an error of Ray or of a worker."""
    inner = getattr(error, "cause", None) or error
    return (
        f"a worker failed: {_last_line(inner)}; what is finished is kept, run again with --resume."
    )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
