"""What each worker of a run has to know. Plain data, so that it can be sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from gradtoken.batch.target_spec import Asked
from gradtoken.images.load_image import MAX_PIXELS
from gradtoken.targets.activation import check_activation

if TYPE_CHECKING:
    from gradtoken.attribution import Method
    from gradtoken.models import Model

_SOFTWARE = ("gradtoken", "torch", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True)
class Job:
    """How pictures are explained.

    Args:
        model: its name for `load`.
        checkpoint: path of your own weights, as for `load`.
        device: where the model runs, as for `load`.
        dtype: what it computes in, as for `load`.
        pretrained: False for random weights, as for `load`.
        image_size: (height, width) in pixels, or one number for both, as for `load`.
        activation: how logits become probabilities, as for `load`.
        method: its name.
        options: the method's.
        targets: what is asked of every picture.
        batch_size: pictures that go through the model together; in each shard always the same ones.
        threads: of torch in each worker.
        max_pixels: larger pictures are refused before they are decoded.
        image_column: of Parquet and Hugging Face sources.
        source_options: for fsspec; never written down.
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
    targets: Asked = field(default_factory=lambda: Asked(top_k=1))
    batch_size: int = 16
    threads: int = 1
    max_pixels: int = MAX_PIXELS
    image_column: str | None = None
    source_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def load(self, device: str | None = None) -> Model:
        """The model, on the job's device or another."""
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
        """The method, with its options."""
        from gradtoken.attribution import make_method

        return make_method(self.method, **self.options)

    def identity(self, model: Model) -> dict[str, Any]:
        """What the numbers of a map depend on, as plain data."""
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
        """What else decides which rows a run makes and their last bits, as plain data."""
        return {
            "targets": self.targets.settings(),
            "batch_size": self.batch_size,
            "threads": self.threads,
            "max_pixels": self.max_pixels,
        }


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits for a model and method."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
