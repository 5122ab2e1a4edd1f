"""The options of `gradtoken bench` that map a data set's categories to a model's classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradtoken.errors import DatasetError

if TYPE_CHECKING:
    from gradtoken.bench.class_map import ClassMap
    from gradtoken.models import Model


@dataclass(frozen=True)
class ClassMapOptions:
    """A class map, and when a category of it is asked about."""

    class_map: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file {category: [class ids or names]}: a category of the data set is "
            "asked about by the likeliest of these classes of the model, in place of a class of "
            "the same name."
        ),
    ] = None
    min_probability: Annotated[
        float | None,
        typer.Option(
            help="With --class-map: the least probability of a category's classes together. "
            "Default: 0.03."
        ),
    ] = None
    min_area: Annotated[
        float | None,
        typer.Option(
            help="With --class-map: the least part of the input that an object covers. Default: "
            "0.01."
        ),
    ] = None
    max_area: Annotated[
        float | None,
        typer.Option(
            help="With --class-map: the largest part of the input that an object covers. Default: "
            "0.6."
        ),
    ] = None

    def check(self) -> None:
        """Check the options before a model is loaded.

        Raises:
            DatasetError: conditions without a class map.
        """
        conditions = (self.min_probability, self.min_area, self.max_area)
        if self.class_map is None and any(value is not None for value in conditions):
            raise DatasetError(
                "--min-probability, --min-area and --max-area say when a category of a class map "
                "is asked about; give --class-map too."
            )

    def read(self, model: Model) -> ClassMap | None:
        """The class map for a model; None where no map is given.

        Raises:
            DatasetError: a file that is no class map, or not for this model; conditions that are
                no parts of 1.
        """
        from gradtoken.bench.class_map import read_class_map

        if self.class_map is None:
            return None
        return read_class_map(
            self.class_map,
            model.labels,
            probability=0.03 if self.min_probability is None else self.min_probability,
            area=(
                0.01 if self.min_area is None else self.min_area,
                0.6 if self.max_area is None else self.max_area,
            ),
        )
