"""The local engine: one model in this process, and threads that decode images."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from gradtoken.batch.engines.decoding import Chunk, Decoder
from gradtoken.batch.engines.worker import Explainer
from gradtoken.batch.results.shards import ChunkRows
from gradtoken.batch.sources.item import Item

Load = Callable[[int], tuple[int, list[Item]]]
"""From a shard's number to the number of its first image in the run and its items."""
_END = object()


def run_local(
    explainer: Explainer,
    decoder: Decoder,
    shards: Iterable[int],
    load: Load,
    add: Callable[[ChunkRows], None],
    *,
    decoders: int,
) -> None:
    """Explain shards.

    Args:
        explainer: the model and method.
        decoder: reads and decodes images.
        shards: their numbers.
        load: the items of a shard.
        add: called with the rows of each chunk.
        decoders: number of threads that decode, each its own shard. They wait for the model, so
            that only a few chunks are in memory.

    Raises:
        Exception: whatever decoding, the model or `add` raises, after the threads have ended.
    """
    with _DecodingThreads(decoder, shards, load, decoders) as threads:
        for chunk in threads.chunks():
            add(explainer(chunk))


class _DecodingThreads:
    """Threads that decode shards and put the chunks into a queue of limited length."""

    def __init__(self, decoder: Decoder, shards: Iterable[int], load: Load, count: int) -> None:
        self._decoder, self._load = decoder, load
        self._remaining, self._lock = iter(shards), threading.Lock()
        self._queue: queue.Queue[object] = queue.Queue(maxsize=max(2, count))
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._decode, daemon=True) for _ in range(count)]

    def __enter__(self) -> _DecodingThreads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def chunks(self) -> Iterator[Chunk]:
        """Yield chunks as they are decoded; raise what a thread raised."""
        running = len(self._threads)
        while running:
            message = self._queue.get()
            if isinstance(message, Chunk):
                yield message
            elif message is _END:
                running -= 1
            else:
                assert isinstance(message, BaseException)
                raise message

    def _decode(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    shard = next(self._remaining, None)
                if shard is None:
                    break
                for chunk in self._decoder(shard, *self._load(shard)):
                    if not self._put(chunk):
                        return
            self._put(_END)
        except BaseException as error:  # noqa: BLE001
            self._put(error)

    def _put(self, message: object) -> bool:
        """Wait for room in the queue; False if the threads are to end."""
        while not self._stop.is_set():
            try:
                self._queue.put(message, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
