"""The manifest of a run and the journal of its finished shards, on disk beside the results."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from gradtoken.batch.plan import Plan
from gradtoken.batch.results.folder import Folder
from gradtoken.errors import OutputError

MANIFEST = "manifest.json"
DATA = "data"
"""Folder of the shards, in the folder of a run."""
DONE = "done"
"""Folder of the journal."""
_LINES = 1000
"""Lines of each file of the journal."""
_SECONDS = 2.0
"""Finished shards are written to the journal at most this much later; a kill loses no more work."""


class Manifest(NamedTuple):
    """What a run is.

    Args:
        settings: everything the results depend on, as plain data.
        plan: the shards.
    """

    settings: dict[str, Any]
    plan: Plan


@dataclass(frozen=True)
class Done:
    """A finished shard.

    Args:
        shard: its number.
        images: number of images in it.
        rows: number of rows of its file, one for each image and target.
        errors: number of images that could not be explained.
        bytes: size of its file.
        sha256: of its file.
    """

    shard: int
    images: int
    rows: int
    errors: int
    bytes: int
    sha256: str


def shard_name(shard: int) -> str:
    """The file of a shard, in the folder of a run."""
    return f"{DATA}/{shard:08d}.parquet"


def write_manifest(folder: Folder, settings: dict[str, Any], plan: Plan) -> None:
    """Write the manifest of a run, before its first shard.

    Raises:
        OutputError: it cannot be written.
    """
    record = {
        "settings": settings,
        "plan": {
            "shard_size": plan.shard_size,
            "pictures": plan.images,
            "pieces": plan.pieces,
        },
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    folder.write(MANIFEST, text.encode("utf-8", "replace"))


def read_manifest(folder: Folder) -> Manifest | None:
    """Read the manifest in a folder; None if there is no such file.

    Raises:
        OutputError: it is damaged or cannot be read.
    """
    content = folder.read(MANIFEST)
    if content is None:
        return None
    try:
        record = json.loads(content)
        fields, settings = record["plan"], record["settings"]
        pieces = tuple(str(piece) for piece in fields["pieces"])
        plan = Plan(int(fields["shard_size"]), int(fields["pictures"]), pieces)
        if plan.shard_size < 1 or plan.images < 1 or not isinstance(settings, dict):
            raise ValueError
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise OutputError(
            f"{folder.path(MANIFEST)} is damaged; start the run anew in another folder."
        ) from None
    return Manifest(settings, plan)


def check_settings(before: dict[str, Any], now: dict[str, Any], folder: Folder) -> None:
    """Check that a run is resumed with the settings it began with.

    Args:
        before: settings in the manifest.
        now: settings of the command.
        folder: of the run.

    Raises:
        OutputError: names what differs.
    """
    now = json.loads(json.dumps(now))
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        changes = "; ".join(
            f"{key} was {_brief(before.get(key))} and is {_brief(now.get(key))}"
            for key in differing
        )
        raise OutputError(
            f"{folder.name} holds a run of other settings ({changes}); resume with the same ones, "
            "or give another --out."
        )


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


_FIELDS = [item.name for item in fields(Done)]
_KEYS = {"images": "pictures"}
"""Keys in the journal of fields with another name."""


@dataclass
class Journal:
    """The shards that are done, in files of a thousand lines.

    A file is replaced at most every two seconds, and at the end of the run unless it is killed. A
    shard that is missing in the journal is made again, to the same bytes.

    Args:
        folder: of the run.
        done: finished shards by number.
    """

    folder: Folder
    done: dict[int, Done] = field(default_factory=dict)
    _number: int = 0
    _lines: list[str] = field(default_factory=list)
    _written: float = 0.0
    _saved: int = 0

    @classmethod
    def read(cls, folder: Folder, plan: Plan) -> Journal:
        """Read a folder's journal, without shards whose file is missing or of another size."""
        journal = cls(folder)
        sizes = folder.sizes(DATA)
        for name in sorted(folder.sizes(DONE)):
            if name.removesuffix(".jsonl").isdecimal():
                journal._number = int(name.removesuffix(".jsonl")) + 1
            for line in (folder.read(f"{DONE}/{name}") or b"").splitlines():
                done = _parse(line)
                if done is None:
                    continue
                complete = sizes.get(f"{done.shard:08d}.parquet") == done.bytes
                if complete and 0 <= done.shard < plan.shards:
                    journal.done[done.shard] = done
        return journal

    def add(self, done: Done) -> None:
        """Add a shard whose file is in place."""
        self.done[done.shard] = done
        self._lines.append(_format(done))
        if time.monotonic() - self._written >= _SECONDS or len(self._lines) >= _LINES:
            self.flush()

    def flush(self) -> None:
        """Write the lines that are not on disk yet."""
        if len(self._lines) == self._saved:
            return
        content = "".join(line + "\n" for line in self._lines)
        self.folder.write(f"{DONE}/{self._number:06d}.jsonl", content.encode())
        self._written, self._saved = time.monotonic(), len(self._lines)
        if len(self._lines) >= _LINES:
            self._number, self._lines, self._saved = self._number + 1, [], 0


def _format(done: Done) -> str:
    return json.dumps({_KEYS.get(name, name): value for name, value in asdict(done).items()})


def _parse(line: bytes) -> Done | None:
    """A shard from its line of the journal; None if the line is damaged."""
    try:
        record = json.loads(line)
        done = Done(**{name: record.pop(_KEYS.get(name, name)) for name in _FIELDS}, **record)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    counts = (done.shard, done.images, done.rows, done.errors, done.bytes)
    return done if all(type(count) is int and count >= 0 for count in counts) else None


def write_shard(
    folder: Folder, shard: int, content: bytes, rows: int, counts: tuple[int, int]
) -> Done:
    """Write the file of a shard.

    Args:
        folder: of the run.
        shard: its number.
        content: of the file.
        rows: number of rows in it.
        counts: number of images and of errors in it.

    Raises:
        OutputError: it cannot be written.
    """
    folder.write(shard_name(shard), content)
    digest = hashlib.sha256(content).hexdigest()
    return Done(shard, counts[0], rows, counts[1], len(content), digest)
