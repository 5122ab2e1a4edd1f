"""A batch job, its progress and its summary: plain data that can be sent to other processes."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from gradtoken.batch.target_spec import TargetSpec
from gradtoken.images.load_image import MAX_PIXELS
from gradtoken.targets.activation import check_activation

if TYPE_CHECKING:
    from gradtoken.attribution import Method
    from gradtoken.models import Model

_SOFTWARE = ("gradtoken", "torch", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True)
class Job:
    """How images are explained.

    Args:
        model: its name for `load`.
        checkpoint: path of your own weights, as for `load`.
        device: of the model, as for `load`.
        dtype: of the model, as for `load`.
        pretrained: False for random weights, as for `load`.
        image_size: (height, width) in pixels, or one number for both, as for `load`.
        activation: how logits become probabilities, as for `load`.
        method: the name of the attribution method.
        options: of the method.
        targets: which targets are explained for every image.
        batch_size: images in each forward pass; the batches of a shard are always the same.
        threads: of torch in each worker.
        max_pixels: a larger image becomes a row with an error, and is not decoded.
        image_column: of Parquet and Hugging Face sources.
        source_options: for fsspec; never written to the results.
    """

    model: str = "demo"
    checkpoint: str | None = None
    device: str | None = None
    dtype: str | None = None
    pretrained: bool = True
    image_size: int | tuple[int, int] | None = None
    activation: str | None = None
    method: str = "gradtoken"
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: TargetSpec = field(default_factory=lambda: TargetSpec(top_k=1))
    batch_size: int = 16
    threads: int = 1
    max_pixels: int = MAX_PIXELS
    image_column: str | None = None
    source_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def load(self, device: str | None = None) -> Model:
        """Load the model, on the job's device or another one."""
        from gradtoken.models import load

        return load(
            self.model,
            checkpoint=self.checkpoint,
            device=device or self.device,
            dtype=self.dtype,
            pretrained=self.pretrained,
            image_size=self.image_size,
            activation=None if self.activation is None else check_activation(self.activation),
        )

    def make_method(self) -> Method:
        """The attribution method, with its options."""
        from gradtoken.attribution import make_method

        return make_method(self.method, **self.options)

    def identity(self, model: Model) -> dict[str, Any]:
        """Everything the values of a map depend on, as plain data."""
        from gradtoken.models.fingerprint import preprocessing_sha256, weights_sha256

        return {
            "model": self.model,
            "weights": weights_sha256(model),
            "preprocessing": preprocessing_sha256(model),
            "dtype": str(model.dtype).removeprefix("torch."),
            "image_size": self.image_size,
            "activation": model.probability,
            "method": self.method,
            "options": self.make_method().options_for(model.activation),
            "software": {name: version(name) for name in _SOFTWARE},
        }

    def settings(self) -> dict[str, Any]:
        """What else decides the rows of a run and their exact bytes, as plain data."""
        return {
            "targets": self.targets.settings(),
            "batch_size": self.batch_size,
            "threads": self.threads,
            "max_pixels": self.max_pixels,
        }


@dataclass(frozen=True)
class Progress:
    """Callbacks of a run; each does nothing by default.

    Args:
        planned: called once with the number of images to explain and of those done already.
        advanced: called after each batch with its number of images and of errors.
    """

    planned: Callable[[int, int], None] = lambda images, done: None
    advanced: Callable[[int, int], None] = lambda images, errors: None


@dataclass(frozen=True)
class Summary:
    """The outcome of a run.

    Args:
        out: folder of the results.
        images: number of all images, also of earlier attempts.
        rows: number of rows of the results, one for each image and target.
        errors: number of images that could not be explained; each is a row with its error.
        shards: number of files of results.
        resumed: number of shards that were there already.
        before: number of images in these.
        seconds: duration of this attempt, without loading the model.
    """

    out: str
    images: int
    rows: int
    errors: int
    shards: int
    resumed: int
    before: int
    seconds: float

    @property
    def pictures(self) -> int:
        """Deprecated: use `images`."""
        warnings.warn(
            "Summary.pictures is deprecated; use Summary.images.", DeprecationWarning, stacklevel=2
        )
        return self.images

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self)


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that identify a model and method."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
