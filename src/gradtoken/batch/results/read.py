"""Reading the results of a run: as maps, or as Arrow tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from gradtoken.batch.results.folder import Folder
from gradtoken.batch.results.manifest import DATA, read_manifest
from gradtoken.batch.results.schema import results_schema
from gradtoken.deprecation import renamed_parameters
from gradtoken.errors import DatasetError, did_you_mean
from gradtoken.extras import needs

if TYPE_CHECKING:
    from gradtoken.explanation.style import Style

_NUMBERS = ("logit", "probability", "total", "positive", "evidence")
_ROWS = 1024
"""Rows in each batch while maps are read."""


@dataclass(frozen=True)
class Map:
    """The map of one image and target, or the reason why there is none.

    Args:
        index: number of the image in the run.
        id: of the image, unique in the run.
        source: the file or archive member that it was read from.
        sha256: of the image's encoded bytes.
        size: (width, height) of the image in pixels.
        rank: position of the target among the image's targets.
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
        """The map upsampled to pixels (height, width); 0 outside the model's input.

        Args:
            size: (width, height) of the result; None for that of the image.

        Raises:
            DatasetError: the image could not be explained.
        """
        import torch

        from gradtoken.images.box import Box
        from gradtoken.images.patch_grid import lay_out

        if self.tokens is None or self.size is None or self.box is None:
            raise DatasetError(f"{self.id} has no map: {self.error}")
        out = size or self.size
        box = Box(*(edge * out[i % 2] / self.size[i % 2] for i, edge in enumerate(self.box)))
        return lay_out(torch.from_numpy(self.tokens)[None], box, out)[0].numpy()

    @renamed_parameters(picture="image")
    def overlay(self, image: Image.Image, style: Style | None = None) -> Image.Image:
        """The map in colour over its image.

        Args:
            image: the image, which is not part of the results.
            style: display choices; None for the default ones.

        Raises:
            DatasetError: the image could not be explained.
        """
        import torch

        from gradtoken.explanation.style import MAX_SIDE, Style, fitted_to, overlay
        from gradtoken.images.box import Box

        image = image.convert("RGB")
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        values = self.relevance(image.size)
        assert self.size is not None
        assert self.box is not None
        scaled = (edge * image.size[i % 2] / self.size[i % 2] for i, edge in enumerate(self.box))
        assert self.tokens is not None
        fitted = fitted_to(torch.from_numpy(self.tokens), style or Style())
        return overlay(image, values, Box(*scaled), fitted)


class Results:
    """The rows of a run, or those that fit a filter. Made by `read`.

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
        with dataset_errors(self._place):
            return int(self.dataset.count_rows(filter=self._where))

    def __iter__(self) -> Iterator[Map]:
        for batch in self.batches():
            for row in batch.to_pylist():
                with dataset_errors(self._place):
                    result = _map(row)
                yield result

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Arrow record batches in the order of the run, a few in memory at once.

        Args:
            columns: names of the columns to read; None for all.

        Raises:
            DatasetError: there is no such column, or the results are damaged.
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
        with dataset_errors(self._place):
            yield from (batch for batch in scanner.to_batches() if batch.num_rows)

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """All rows as one Arrow table; `.to_pandas()` makes a data frame of it.

        Args:
            columns: names of the columns to read; None for all.

        Raises:
            DatasetError: there is no such column, or the results are damaged.
        """
        schema = self.dataset.schema
        if columns:
            batches = list(self.batches(columns))
            schema = needs("pyarrow").schema([schema.field(name) for name in columns])
        else:
            batches = list(self.batches())
        return needs("pyarrow").Table.from_batches(batches, schema)


def read(
    folder: str,
    *,
    targets: Sequence[int | str] | int | str | None = None,
    ids: Sequence[str] | str | None = None,
    errors: bool | None = False,
    where: Any = None,
    options: Mapping[str, Any] | None = None,
) -> Results:
    """Read the results of `gradtoken batch`, as maps or as a table.

    Rows that do not fit the filters are skipped by the statistics in the files where possible. A
    run that is not finished has its finished shards.

    Args:
        folder: a path or a URL.
        targets: only these classes, by id or name as in the results.
        ids: only these images.
        errors: False for maps only, True for images without one only, None for both.
        where: an Arrow expression such as `pyarrow.compute.field("probability") < 0.5`.
        options: for fsspec.

    Raises:
        DatasetError: there is no run in the folder.

    Example:
        >>> for result in gradtoken.batch.read("maps", targets="banana"):
        ...     print(result.id, result.probability, result.tokens.shape)
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
        classes = [targets] if isinstance(targets, (int, str)) else list(targets)
        pa = needs("pyarrow")
        numbers = pa.array([t for t in classes if isinstance(t, int)], pa.int32())
        names = pa.array([t for t in classes if isinstance(t, str)], pa.string())
        terms.append(field("target_id").isin(numbers) | field("target_name").isin(names))
    combined = None
    for term in terms:
        combined = term if combined is None else combined & term
    return Results(place, combined)


@contextmanager
def dataset_errors(place: str) -> Iterator[None]:
    """Turn what damaged files or rows raise into a `DatasetError`.

    Args:
        place: where the results are; the message begins with it.
    """
    try:
        yield
    except (
        *(needs("pyarrow").ArrowException, OSError),
        *(ValueError, TypeError, LookupError, AttributeError, OverflowError),
    ) as error:
        cause = " ".join(str(error).split())[:300]
        raise DatasetError(
            f"{place} are damaged, not of gradtoken batch, or do not fit the filter: {cause}."
        ) from None


def _map(row: Mapping[str, Any]) -> Map:
    tokens = size = None
    if row["relevance"] is not None:
        shares = np.asarray(row["relevance"], dtype=np.float32) * np.float32(row["scale"])
        tokens = shares.reshape(row["grid_height"], row["grid_width"])
    if row["width"] is not None:
        size = (int(row["width"]), int(row["height"]))
        if min(size) < 1:
            raise ValueError(f"an image of {size[0]}x{size[1]} pixels")
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
