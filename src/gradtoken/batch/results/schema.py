"""The columns of the results: one row for each image and target, or an image's error."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradtoken.extras import needs

_ROW_GROUP = 4096


def results_schema() -> Any:
    """The Arrow schema of the results.

    `total` and `positive` are the map's evidence (`gradtoken.explanation.evidence`): the signed
    sum, and the share of the absolute relevance that is positive; `evidence` is whether that is
    enough. `relevance` has a map's tokens row by row, divided by their largest absolute value,
    which is `scale`, so that half precision is enough for small maps too. The raw map is their
    product.
    """
    pa = needs("pyarrow")
    return pa.schema(
        [
            ("index", pa.int64()),
            ("id", pa.string()),
            ("source", pa.string()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("rank", pa.int16()),
            ("target_id", pa.int32()),
            ("target_name", pa.string()),
            ("logit", pa.float32()),
            ("probability", pa.float32()),
            ("grid_height", pa.int16()),
            ("grid_width", pa.int16()),
            ("box", pa.list_(pa.float32())),
            ("scale", pa.float32()),
            ("relevance", pa.list_(pa.float16())),
            ("total", pa.float32()),
            ("positive", pa.float32()),
            ("evidence", pa.bool_()),
            ("model", pa.string()),
            ("method", pa.string()),
            ("fingerprint", pa.string()),
            ("error", pa.string()),
        ]
    )


def to_table(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows as an Arrow table; a column that a row lacks is null."""
    pa = needs("pyarrow")
    schema = results_schema()
    arrays = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.table(arrays, schema=schema)


def to_ipc(table: Any) -> bytes:
    """A table as bytes, to send to another process."""
    pa = needs("pyarrow")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def from_ipc(content: bytes) -> Any:
    """The table from the bytes of `to_ipc`."""
    return needs("pyarrow").ipc.open_stream(io.BytesIO(content)).read_all()


def to_parquet(table: Any) -> bytes:
    """A table as the bytes of a Parquet file, which are the same for the same rows."""
    pa, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    sink = pa.BufferOutputStream()
    parquet.write_table(
        table.combine_chunks(),
        sink,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        compression_level=3,
        use_dictionary=["model", "method", "fingerprint", "target_name", "sha256", "source", "id"],
    )
    return bytes(sink.getvalue().to_pybytes())


def as_shares(tokens: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
    """The largest absolute value of a map (h, w), and the map divided by it, float16 (h * w,)."""
    scale = float(np.abs(tokens).max())
    shares = tokens.ravel() / scale if scale > 0 else tokens.ravel()
    return scale, shares.astype(np.float16)
