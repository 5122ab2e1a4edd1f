"""Reading a run's results back: as maps one by one, or as Arrow tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from gradtoken.batch.damage import damage
from gradtoken.batch.results.folder import Folder
from gradtoken.batch.results.manifest import DATA, read_manifest
from gradtoken.batch.results.schema import results_schema
from gradtoken.errors import DatasetError, did_you_mean
from gradtoken.extras import needs

if TYPE_CHECKING:
    from gradtoken.explanation.style import Style

_NUMBERS = ("logit", "probability", "total", "positive", "evidence")
_ROWS = 1024
"""Rows in memory at once while maps are read one by one."""


@dataclass(frozen=True)
class Map:
    """One picture's map for one target, or why there is none.

    Args:
        index: the picture's number in the run.
        id: the image's, unique in the run.
        source: the file or archive member that it was read from.
        sha256: of the image's bytes.
        size: (width, height) of the picture in pixels.
        rank: which of the picture's targets it is.
        target_id: the class id; None for a prompt.
        target_name: the class name, or the prompt.
        logit: the target's score.
        probability: the model's probability of the class.
        tokens: raw signed relevance (h, w) float32, from half precision.
        total: signed sum of the map's relevance.
        positive: positive relevance's share of the absolute relevance, 0 to 1.
        evidence: whether the map has positive evidence (`gradtoken.explanation.evidence`).
        box: (left, top, right, bottom) of the image that the grid of tokens covers, in pixels.
        error: None, or a sentence; then there is no map.
    """

    index: int
    id: str
    source: str
    sha256: str | None
    size: tuple[int, int] | None
    rank: int
    target_id: int | None
    target_name: str | None
    logit: float | None
    probability: float | None
    tokens: np.ndarray[Any, Any] | None
    total: float | None
    positive: float | None
    evidence: bool | None
    box: tuple[float, float, float, float] | None
    error: str | None

    def relevance(self, size: tuple[int, int] | None = None) -> np.ndarray[Any, Any]:
        """The map on the picture's pixels, (height, width); 0 where the model never looked.

        Args:
            size: (width, height) to draw it at; None for the picture's own.

        Raises:
            DatasetError: if the picture could not be explained.
        """
        import torch

        from gradtoken.images.crop_box import Box, lay_out

        if self.tokens is None or self.size is None or self.box is None:
            raise DatasetError(f"{self.id} has no map: {self.error}")
        wanted = size or self.size
        box = Box(*(edge * wanted[i % 2] / self.size[i % 2] for i, edge in enumerate(self.box)))
        return lay_out(torch.from_numpy(self.tokens)[None], box, wanted)[0].numpy()

    def overlay(self, picture: Image.Image, style: Style | None = None) -> Image.Image:
        """The map in colour over its picture, which is not part of the results.

        Raises:
            DatasetError: if the picture could not be explained.
        """
        import torch

        from gradtoken.explanation.style import MAX_SIDE, Style, fitted_to, overlay
        from gradtoken.images.crop_box import Box

        shown = picture.convert("RGB")
        shown.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        values = self.relevance(shown.size)
        assert self.size is not None
        assert self.box is not None
        scaled = (edge * shown.size[i % 2] / self.size[i % 2] for i, edge in enumerate(self.box))
        assert self.tokens is not None
        drawn_in = fitted_to(torch.from_numpy(self.tokens), style or Style())
        return overlay(shown, values, Box(*scaled), drawn_in)


class Results:
    """The rows of a run, perhaps only some of them. Made by `read`.

    Args:
        folder: of the run.
        where: an Arrow expression, or None for all rows.
    """

    def __init__(self, folder: Folder, where: Any = None) -> None:
        self._folder, self._where = folder, where
        self._place = f"the results in {folder.path(DATA)}"

    @cached_property
    def dataset(self) -> Any:
        """The finished shards, as a `pyarrow.dataset`."""
        names = sorted(self._folder.sizes(DATA))
        return needs("pyarrow.dataset").dataset(
            [self._folder.path(f"{DATA}/{name}") for name in names],
            schema=results_schema(),
            format="parquet",
            filesystem=self._folder.filesystem,
        )

    def __len__(self) -> int:
        with damage(self._place):
            return int(self.dataset.count_rows(filter=self._where))

    def __iter__(self) -> Iterator[Map]:
        for batch in self.batches():
            for row in batch.to_pylist():
                with damage(self._place):
                    found = _map(row)
                yield found

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Arrow record batches in the order of the run, a few in memory at once.

        Raises:
            DatasetError: a column that there is not.
        """
        for name in columns or ():
            if name not in self.dataset.schema.names:
                known = did_you_mean(name, self.dataset.schema.names)
                raise DatasetError(f"the results have no column {name!r}{known or '.'}")
        scanner = self.dataset.scanner(
            columns=list(columns) if columns else None,
            filter=self._where,
            batch_size=_ROWS,
            batch_readahead=2,
            fragment_readahead=1,
        )
        return self._scanned(scanner)

    def _scanned(self, scanner: Any) -> Iterator[Any]:
        with damage(self._place):
            yield from (batch for batch in scanner.to_batches() if batch.num_rows)

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """All rows as one Arrow table; `.to_pandas()` makes a data frame of it.

        Raises:
            DatasetError: a column that there is not.
        """
        schema = self.dataset.schema
        if columns:
            found = list(self.batches(columns))
            schema = needs("pyarrow").schema([schema.field(name) for name in columns])
        else:
            found = list(self.batches())
        return needs("pyarrow").Table.from_batches(found, schema)


def read(
    folder: str,
    *,
    targets: Sequence[int | str] | int | str | None = None,
    ids: Sequence[str] | str | None = None,
    errors: bool | None = False,
    where: Any = None,
    options: Mapping[str, Any] | None = None,
) -> Results:
    """The results of `gradtoken batch`, to iterate over as maps or to take as a table.

    What does not fit is skipped by the statistics in the files where they tell. A run that is not
    finished gives its finished shards.

    Args:
        folder: a path or a URL.
        targets: only these classes, by id or name as in the results.
        ids: only these pictures.
        errors: False for maps only, True for pictures without one only, None for both.
        where: an Arrow expression such as `pyarrow.compute.field("probability") < 0.5`.
        options: for fsspec.

    Raises:
        DatasetError: there is no run in the folder.

    Example:
        >>> for one in gradtoken.batch.read("maps", targets="banana"):
        ...     print(one.id, one.probability, one.tokens.shape)
    """
    place = Folder(str(folder), options)
    if read_manifest(place) is None:
        raise DatasetError(f"{folder} holds no results of gradtoken batch.")
    field = needs("pyarrow.compute").field
    terms = [where] if where is not None else []
    if errors is not None:
        terms.append(field("error").is_valid() if errors else field("error").is_null())
    if ids is not None:
        terms.append(
            field("id").isin(
                needs("pyarrow").array([ids] if isinstance(ids, str) else list(ids), "string")
            )
        )
    if targets is not None:
        wanted = [targets] if isinstance(targets, (int, str)) else list(targets)
        pa = needs("pyarrow")
        numbers = pa.array([t for t in wanted if isinstance(t, int)], pa.int32())
        names = pa.array([t for t in wanted if isinstance(t, str)], pa.string())
        terms.append(field("target_id").isin(numbers) | field("target_name").isin(names))
    whole = None
    for term in terms:
        whole = term if whole is None else whole & term
    return Results(place, whole)


def _map(row: Mapping[str, Any]) -> Map:
    tokens = size = None
    if row["relevance"] is not None:
        shares = np.asarray(row["relevance"], dtype=np.float32) * np.float32(row["scale"])
        tokens = shares.reshape(row["grid_height"], row["grid_width"])
    if row["width"] is not None:
        size = (int(row["width"]), int(row["height"]))
        if min(size) < 1:
            raise ValueError(f"a picture of {size[0]}x{size[1]} pixels")
    names = ("index", "id", "source", "sha256", "rank", "target_id", "target_name")
    return Map(
        **{name: row[name] for name in (*names, *_NUMBERS, "error")},
        size=size,
        tokens=tokens,
        box=None if row["box"] is None else _box(row["box"]),
    )


def _box(edges: Sequence[Any]) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, edges)
    return left, top, right, bottom
