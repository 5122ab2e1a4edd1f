"""Results that are no results, as a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gradtoken.errors import DatasetError
from gradtoken.extras import needs


@contextmanager
def damage(place: str) -> Iterator[None]:
    """Turn what damaged rows or files raise into a `DatasetError`.

    Args:
        place: where the results are, to begin the sentence with.
    """
    try:
        yield
    except (
        *(needs("pyarrow").ArrowException, OSError),
        *(ValueError, TypeError, LookupError, AttributeError, OverflowError),
    ) as error:
        told = " ".join(str(error).split())[:300]
        raise DatasetError(
            f"{place} are damaged, not of gradtoken batch, or do not fit the filter: {told}."
        ) from None
