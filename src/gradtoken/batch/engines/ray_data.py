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
from gradtoken.batch.engines.worker import Explained, Explainer
from gradtoken.batch.job import Job
from gradtoken.errors import GradTokenError, ModelError
from gradtoken.extras import needs

_MAX_BLOCKS = 20_000
_OBJECT_BYTES = 1 << 30
"""Of chunks on their way, on a machine of our own; decoding waits when they are more."""
_PREFIX = "gradtoken-ray-"
_LOOPBACK = ("127.0.0.1:", "localhost:")
_DECODING_CPUS = 0.5
"""Two decoding tasks to a core; also keeps Ray from running them inside the actors."""


@dataclass(frozen=True)
class Cluster:
    """Where the Ray engine runs.

    Args:
        address: of a running cluster (`HOST:PORT` or `auto`); None starts one on
            this machine that ends with the run.
        workers: model actors; None for as many as the GPUs allow, else one for two cores.
        num_gpus: of each worker; a fraction lets several share one.
        decoders: decoding tasks at a time at most; None leaves it to Ray.
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
    add: Callable[[Explained], None],
    cluster: Cluster,
) -> None:
    """Explain shards; `add` gets their chunks as they come.

    A task or actor that is lost with its process or machine is started again by Ray. Decoding waits
    while the actors are busy.

    Raises:
        GradTokenError: no cluster, no room for a worker, or what a worker raised.
    """
    settle(cluster.address)
    ray, data = needs("ray"), needs("ray.data")
    with _session(ray, job, cluster) as workers:
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # each chunk is a block, and can go to any actor
        context.print_on_execution_start = False
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
                _Actor,
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
                    found = pickle.loads(content)
                    if isinstance(found, GradTokenError):
                        raise found
                    add(found)
        except ray.exceptions.RayError as error:
            raise GradTokenError(cause(error)) from None


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


class _Actor:
    """A model in a process of its own."""

    def __init__(self, job: Job, identity: dict[str, Any]) -> None:
        self._refused: GradTokenError | None = None
        try:
            self._explainer = Explainer(job, identity)
        except GradTokenError as error:
            self._refused = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = []
        for content in batch["chunk"]:
            chunk = pickle.loads(content)
            if self._refused is not None or isinstance(chunk, GradTokenError):
                found.append(self._refused or chunk)
            else:
                found.append(self._explainer(chunk))
        return {"explained": np.array([pickle.dumps(one) for one in found], dtype=object)}


def _cell(thing: Any) -> np.ndarray[Any, Any]:
    return np.array([pickle.dumps(thing, protocol=5)], dtype=object)


def _lister(ray: Any, load: Load) -> Any:
    """An actor beside the driver that reads the run's listing, which others may not see."""

    class Lister:
        def items(self, shard: int) -> Any:
            return load(shard)

    here = ray.get_runtime_context().get_node_id()
    strategies = needs("ray.util.scheduling_strategies")
    beside = strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Lister).options(**options, scheduling_strategy=beside).remote()


@contextmanager
def _session(ray: Any, job: Job, cluster: Cluster) -> Iterator[int]:
    """Ray connected, for as many workers as it gives."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield _workers(ray, job, cluster)
        return
    temporary = None
    try:
        if cluster.address:
            connect(ray, address=cluster.address)
        else:
            _sweep()
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
        yield _workers(ray, job, cluster)
    finally:
        ray.shutdown()
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def connect(ray: Any, **options: Any) -> None:
    """Start Ray, or reach a cluster.

    Raises:
        GradTokenError: why that is not possible.
    """
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (ImportError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise GradTokenError(f"Ray cannot be started or reached: {_first(error)}") from None


def settle(address: str | None) -> None:
    """What Ray reads from the environment while it is imported; what is set already stays."""
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    if address is None or address.startswith(_LOOPBACK):
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # or it listens on other interfaces
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _sweep() -> None:
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


def _workers(ray: Any, job: Job, cluster: Cluster) -> int:
    """How many actors to start."""
    there = ray.cluster_resources()
    if cluster.num_gpus:
        most = int(there.get("GPU", 0) / cluster.num_gpus + 1e-9)
    else:
        most = int((there.get("CPU", 0) - _DECODING_CPUS) // job.threads)
    if most < 1 or (cluster.workers or 0) > most:
        raise ModelError(
            f"the Ray cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, "
            f"which is room for {most} workers of {job.threads} threads and {cluster.num_gpus:g} "
            "GPUs; ask for fewer with --workers, --threads or --num-gpus."
        )
    if cluster.workers:
        return cluster.workers
    return most if cluster.num_gpus else max(1, most // 2)


def cause(error: Exception) -> str:
    """A sentence on what failed in a worker."""
    inner = getattr(error, "cause", None) or error
    return f"a worker failed: {_first(inner)}; what is finished is kept, run again with --resume."


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
