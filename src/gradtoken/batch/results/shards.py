"""Chunks that come in any order become shards that are written whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradtoken.batch.engines.worker import Explained
from gradtoken.batch.results.folder import Folder
from gradtoken.batch.results.manifest import Journal, write_shard
from gradtoken.batch.results.schema import from_ipc, to_parquet
from gradtoken.errors import DatasetError
from gradtoken.extras import needs


class Writer:
    """Gathers the chunks of shards and writes each shard when its last one has come.

    Args:
        folder: the run's.
        journal: what is done.
        max_errors: more pictures with an error stop the run; None for no limit.
        progress: called with the pictures and the errors of each chunk.
    """

    def __init__(
        self,
        folder: Folder,
        journal: Journal,
        max_errors: int | None = None,
        progress: Callable[[int, int], None] = lambda pictures, errors: None,
    ) -> None:
        self._folder, self._journal = folder, journal
        self._max_errors, self._progress = max_errors, progress
        self._waiting: dict[int, dict[int, Explained]] = {}
        self._errors = sum(done.errors for done in journal.done.values())

    def add(self, chunk: Explained) -> None:
        """Take a chunk.

        Raises:
            OutputError: a shard cannot be written.
            DatasetError: too many pictures could not be explained.
        """
        if chunk.shard in self._journal.done:
            return
        parts = self._waiting.setdefault(chunk.shard, {})
        if chunk.number in parts:
            return
        parts[chunk.number] = chunk
        self._errors += chunk.errors
        self._progress(chunk.pictures, chunk.errors)
        if len(parts) == chunk.count:
            self._write(chunk.shard)
        if self._max_errors is not None and self._errors > self._max_errors:
            raise DatasetError(
                f"{self._errors} pictures could not be explained, more than --max-errors "
                f"{self._max_errors}, the last being {chunk.problem} Finished shards are kept; "
                "--resume goes on from there."
            )

    def _write(self, shard: int) -> None:
        parts = self._waiting.pop(shard)
        ordered = [parts[number] for number in sorted(parts)]
        table: Any = needs("pyarrow").concat_tables([from_ipc(part.rows) for part in ordered])
        counts = (sum(p.pictures for p in ordered), sum(p.errors for p in ordered))
        done = write_shard(self._folder, shard, to_parquet(table), table.num_rows, counts)
        self._journal.add(done)
