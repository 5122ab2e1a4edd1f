"""Rows of chunks, in any order, become shards that are written whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradtoken.batch.results.folder import Folder
from gradtoken.batch.results.manifest import Journal, write_shard
from gradtoken.batch.results.schema import from_ipc, to_parquet
from gradtoken.errors import DatasetError
from gradtoken.extras import needs


@dataclass(frozen=True)
class ChunkRows:
    """The rows of one chunk.

    Args:
        shard: number of the chunk's shard.
        number: of the chunk in its shard.
        count: number of chunks in the shard.
        rows: an Arrow table, as the bytes of `to_ipc`.
        images: number of images in the chunk.
        errors: number of them that could not be explained.
        problem: id and error of the first of these.
    """

    shard: int
    number: int
    count: int
    rows: bytes
    images: int
    errors: int
    problem: str | None


class ShardWriter:
    """Collects the chunks of shards and writes each shard when its last one has come.

    Args:
        folder: of the run.
        journal: of the shards that are done.
        max_errors: more images than this with an error stop the run; None for no limit.
        progress: called with the number of images and of errors of each chunk.
    """

    def __init__(
        self,
        folder: Folder,
        journal: Journal,
        max_errors: int | None = None,
        progress: Callable[[int, int], None] = lambda images, errors: None,
    ) -> None:
        self.folder, self.journal = folder, journal
        self._max_errors, self._progress = max_errors, progress
        self._incomplete: dict[int, dict[int, ChunkRows]] = {}
        self._errors = sum(done.errors for done in journal.done.values())

    def add(self, chunk: ChunkRows) -> None:
        """Take the rows of a chunk; those of a chunk that came before are dropped.

        Raises:
            OutputError: a shard cannot be written.
            DatasetError: too many images could not be explained.
        """
        if chunk.shard in self.journal.done:
            return
        chunks = self._incomplete.setdefault(chunk.shard, {})
        if chunk.number in chunks:
            return
        chunks[chunk.number] = chunk
        self._errors += chunk.errors
        self._progress(chunk.images, chunk.errors)
        if len(chunks) == chunk.count:
            self._write(chunk.shard)
        if self._max_errors is not None and self._errors > self._max_errors:
            raise DatasetError(
                f"{self._errors} images could not be explained, more than --max-errors "
                f"{self._max_errors}, the last being {chunk.problem} Finished shards are kept; "
                "--resume goes on from there."
            )

    def _write(self, shard: int) -> None:
        chunks = self._incomplete.pop(shard)
        ordered = [chunks[number] for number in sorted(chunks)]
        table: Any = needs("pyarrow").concat_tables([from_ipc(chunk.rows) for chunk in ordered])
        counts = (sum(c.images for c in ordered), sum(c.errors for c in ordered))
        done = write_shard(self.folder, shard, to_parquet(table), table.num_rows, counts)
        self.journal.add(done)
