"""A run on a cluster that is reached from outside, through Ray Client (`ray://HOST:PORT`).

Ray Data works inside a cluster alone. So the run is one task there, from the listing to the last
shard, and this process waits for it and says how far it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gradtoken.batch.engines.ray_data import cause, connect, settle
from gradtoken.errors import GradTokenError
from gradtoken.extras import needs

if TYPE_CHECKING:
    from gradtoken.batch.job import Job
    from gradtoken.batch.running import Progress, Summary

_SECONDS = 1.0
"""Between two looks at how far it is."""


def run_there(address: str, asked: Mapping[str, Any], progress: Progress) -> Summary:
    """`run` on the cluster at an address.

    Args:
        address: `ray://HOST:PORT`.
        asked: the arguments of `run`.
        progress: is told here how far it is there.

    Raises:
        GradTokenError: no cluster, a connection that is lost, or what the run raised.
    """
    settle(address)
    ray = needs("ray")
    connect(ray, address=address)
    try:
        asked = {**asked, **devices(asked["job"], asked["num_gpus"], ray.cluster_resources())}
        log = ray.remote(_Log).options(num_cpus=0).remote()
        task = ray.remote(_run).options(num_cpus=0, max_retries=0).remote(log, dict(asked))
        try:
            while not ray.wait([task], timeout=_SECONDS)[0]:
                _tell(ray.get(log.taken.remote()), progress)
            summary: Summary = ray.get(task)
            _tell(ray.get(log.taken.remote()), progress)
        except KeyboardInterrupt:
            ray.cancel(task)
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


def devices(job: Job, num_gpus: float | None, there: Mapping[str, float]) -> dict[str, Any]:
    """On what the workers of a run compute, as arguments of `run`.

    The task that starts them may lie on a machine without a GPU, or is shown none, so it is not
    asked.

    Args:
        job: what is asked for.
        num_gpus: of each worker, as asked for.
        there: the cluster's resources.
    """
    if num_gpus is None:
        wanted = job.device or ("cuda" if there.get("GPU") else "cpu")
        num_gpus = 1.0 if wanted.startswith("cuda") else 0.0
    if not num_gpus:
        job = replace(job, device=job.device or "cpu")
    return {"job": job, "num_gpus": num_gpus}


def _tell(heard: list[tuple[str, int, int]], progress: Progress) -> None:
    for what, pictures, other in heard:
        getattr(progress, what)(pictures, other)


class _Log:
    """An actor that hears how far the run is, until somebody asks."""

    def __init__(self) -> None:
        self._heard: list[tuple[str, int, int]] = []

    def hear(self, what: str, pictures: int, other: int) -> None:
        self._heard.append((what, pictures, other))

    def taken(self) -> list[tuple[str, int, int]]:
        heard, self._heard = self._heard, []
        return heard


def _run(log: Any, asked: dict[str, Any]) -> Summary:
    from gradtoken.batch.running import Progress, run

    def planned(pictures: int, done: int) -> None:
        log.hear.remote("planned", pictures, done)

    def advanced(pictures: int, errors: int) -> None:
        log.hear.remote("advanced", pictures, errors)

    return run(**asked, progress=Progress(planned, advanced))
