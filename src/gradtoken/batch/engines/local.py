"""The local engine: one model in this process, pictures decoded beside it in threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable

from gradtoken.batch.engines.decoding import Chunk, Decoder
from gradtoken.batch.engines.worker import Explained, Explainer
from gradtoken.batch.sources.item import Item

Load = Callable[[int], tuple[int, list[Item]]]
"""From a shard's number to the number of its first picture and its items."""
_END = object()


def run_local(
    explainer: Explainer,
    decoder: Decoder,
    shards: Iterable[int],
    load: Load,
    add: Callable[[Explained], None],
    *,
    decoders: int,
) -> None:
    """Explain shards; `add` gets their chunks as they come.

    Args:
        decoders: threads that decode, each its own shard. Those that are ahead wait, so that no
            more than a few chunks are in memory.

    Raises:
        whatever decoding, the model or `add` raises, once the threads have ended.
    """
    decoded: queue.Queue[object] = queue.Queue(maxsize=max(2, decoders))
    stop = threading.Event()
    todo, lock = iter(shards), threading.Lock()

    def put(thing: object) -> bool:
        while not stop.is_set():
            try:
                decoded.put(thing, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def decode() -> None:
        try:
            while not stop.is_set():
                with lock:
                    shard = next(todo, None)
                if shard is None:
                    break
                for chunk in decoder(shard, *load(shard)):
                    if not put(chunk):
                        return
            put(_END)
        except BaseException as error:
            put(error)

    threads = [threading.Thread(target=decode, daemon=True) for _ in range(decoders)]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            thing = decoded.get()
            if isinstance(thing, Chunk):
                add(explainer(thing))
            elif thing is _END:
                running -= 1
            else:
                assert isinstance(thing, BaseException)
                raise thing
    finally:
        stop.set()
        for thread in threads:
            thread.join()
