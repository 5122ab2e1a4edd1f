"""A run on a cluster that is reached from outside, through Ray Client (`ray://HOST:PORT`).

Ray Data works inside a cluster only. So the whole run is one task there, from the listing to the
last shard, and this process waits for it and reports its progress.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gradtoken.batch.engines.ray_data import cause, connect, set_environment
from gradtoken.batch.job import Progress, Summary
from gradtoken.batch.settings import RunSettings
from gradtoken.errors import GradTokenError
from gradtoken.extras import needs

_SECONDS = 1.0
"""Between two reports of progress."""

Execute = Callable[[RunSettings, Progress], Summary]
"""A function of a module, which the cluster imports."""
_Events = list[tuple[str, int, int]]
"""The name of a callback of `Progress` and its arguments."""


def run_as_task(execute: Execute, settings: RunSettings, progress: Progress) -> Summary:
    """Do a run as one task of the cluster at `settings.address`.

    Args:
        execute: does the run from a process of the cluster.
        settings: of the run.
        progress: callbacks in this process.

    Raises:
        GradTokenError: no cluster, a lost connection, or what the run raised.
    """
    address = settings.address
    set_environment(address)
    ray = needs("ray")
    connect(ray, address=address)
    try:
        settings = choose_device(settings, ray.cluster_resources())
        log = ray.remote(_ProgressLog).options(num_cpus=0).remote()
        task = ray.remote(_execute).options(num_cpus=0, max_retries=0)
        running = task.remote(log, execute, replace(settings, address=None))
        try:
            while not ray.wait([running], timeout=_SECONDS)[0]:
                _report(ray.get(log.take.remote()), progress)
            summary: Summary = ray.get(running)
            _report(ray.get(log.take.remote()), progress)
        except KeyboardInterrupt:
            ray.cancel(running)
            raise
        return summary
    except ray.exceptions.RayError as error:
        inner = getattr(error, "cause", None)
        raise inner if isinstance(inner, GradTokenError) else GradTokenError(cause(error)) from None
    except ConnectionError:
        raise GradTokenError(
            f"the connection to {address} is lost; what is finished is kept, run again with "
            "--resume."
        ) from None
    finally:
        ray.shutdown()


def choose_device(settings: RunSettings, resources: Mapping[str, float]) -> RunSettings:
    """The settings with the device and number of GPUs of the workers.

    They are chosen by the cluster's resources: the task that starts the workers may run on a
    machine without a GPU, or see none.

    Args:
        settings: of the run.
        resources: of the cluster, as `ray.cluster_resources` has them.
    """
    job, num_gpus = settings.job, settings.num_gpus
    if num_gpus is None:
        device = job.device or ("cuda" if resources.get("GPU") else "cpu")
        num_gpus = 1.0 if device.startswith("cuda") else 0.0
    if not num_gpus:
        job = replace(job, device=job.device or "cpu")
    return replace(settings, job=job, num_gpus=num_gpus)


def _report(events: _Events, progress: Progress) -> None:
    for callback, images, other in events:
        getattr(progress, callback)(images, other)


class _ProgressLog:
    """An actor that keeps the progress of a run until it is taken."""

    def __init__(self) -> None:
        self._events: _Events = []

    def add(self, callback: str, images: int, other: int) -> None:
        self._events.append((callback, images, other))

    def take(self) -> _Events:
        events, self._events = self._events, []
        return events


def _execute(log: Any, execute: Execute, settings: RunSettings) -> Summary:
    """In the cluster: do the run and log its progress."""

    def planned(images: int, done: int) -> None:
        log.add.remote("planned", images, done)

    def advanced(images: int, errors: int) -> None:
        log.add.remote("advanced", images, errors)

    return execute(settings, Progress(planned, advanced))
