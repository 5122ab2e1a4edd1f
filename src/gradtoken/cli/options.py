"""The options that several commands share, and how their texts become values."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradtoken.cli import completion
from gradtoken.errors import ImageError, MethodError, ModelError, OutputError, TargetError

if TYPE_CHECKING:
    from gradtoken.attribution import Method
    from gradtoken.models import Model

Images = Annotated[list[str], typer.Argument(help="Images, folders or patterns.")]
ModelSpec = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="demo, timm/NAME, hf/ID, torchvision/NAME, open_clip/ARCHITECTURE/TAG or a "
        ".safetensors file.",
        autocompletion=completion.models,
    ),
]
RandomWeights = Annotated[
    bool,
    typer.Option(
        "--random-weights", help="Build the architecture without weights; nothing is downloaded."
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Your weights for --model timm/NAME: a state dict or a trainer's checkpoint."
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(help="Bring images to this many pixels, as 384 or 256x128 (height x width)."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps, …; default: cuda if present.")]
Dtype = Annotated[str | None, typer.Option(help="float32 (default), bfloat16, float16 or float64.")]
ActivationName = Annotated[
    str | None,
    typer.Option(
        "--activation",
        help="How logits become probabilities: softmax (one class of all), sigmoid (each class by "
        "itself) or none; default: as the model says.",
    ),
]
MethodName = Annotated[
    str,
    typer.Option("--method", help="One of `gradtoken methods`.", autocompletion=completion.methods),
]
MethodNames = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="Repeat it. Default: every method.",
        autocompletion=completion.methods,
    ),
]
OptionPairs = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="A method's option as name=value, such as preset=sharp."),
]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="A class id or name; repeat it. Default: predicted."),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option("--text", help="A prompt, for models such as CLIP; repeat it."),
]
Above = Annotated[
    float | None,
    typer.Option(help="Explain every class with a probability above this number, from 0 to 1."),
]
FinerWeight = Annotated[
    str | None,
    typer.Option(
        "--finer",
        help="Set each class against its nearest classes, as FinerCAM: ALPHA or ALPHA,COUNT, "
        "such as 1 or 0.6,5.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON lines on standard output, and nothing else.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded: the options that go with `--model`."""

    checkpoint: Checkpoint = None
    device: Device = None
    dtype: Dtype = None
    random_weights: RandomWeights = False
    image_size: ImageSize = None
    activation: ActivationName = None

    def load(self, spec: str) -> Model:
        """The model of this name.

        Raises:
            ModelError: if it cannot be loaded as the options say.
        """
        from gradtoken.models import load
        from gradtoken.targets.activation import check_activation

        return load(
            spec,
            checkpoint=self.checkpoint,
            device=self.device,
            dtype=self.dtype,
            pretrained=not self.random_weights,
            image_size=parse_size(self.image_size),
            activation=None if self.activation is None else check_activation(self.activation),
        )


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """`384` or `256x128` as a size.

    Raises:
        ModelError: if it is neither.
    """
    if text is None:
        return None
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise ModelError(f"--image-size {text!r} is no size; write 384 or 256x128.")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def find_targets(
    model: Model,
    names: Sequence[str] | None,
    texts: Sequence[str] | None = None,
    above: float | None = None,
    finer: str | None = None,
) -> Any:
    """The targets of `--target`, `--text` or `--above`, or None for the predicted classes.

    With `--finer`, each class is set against its nearest classes.

    Raises:
        TargetError: unknown names, texts for a model without a text side (or the reverse), two of
            the options, or a number that is no probability.
    """
    from gradtoken.targets import each_finer, parse_finer

    targets = _plain_targets(model, names, texts, above)
    return targets if finer is None else each_finer(targets, parse_finer(finer))


def _plain_targets(
    model: Model, names: Sequence[str] | None, texts: Sequence[str] | None, above: float | None
) -> Any:
    """The targets of `--target`, `--text` or `--above`, or None for the predicted classes."""
    from gradtoken.targets import above as every_above
    from gradtoken.targets import text

    if above is not None:
        if names or texts:
            raise TargetError(
                "--above takes the classes by probability; give no --target or --text."
            )
        if model.prompts is None:
            return every_above(above)
    if texts and names:
        raise TargetError(
            "--target names classes and --text gives prompts; a model takes one kind, so give one."
        )
    if texts:
        if model.prompts is None:
            raise TargetError(
                f"{model.spec} has classes and reads no text, so --text does not fit; use --target "
                "with their names, or a model such as open_clip/ViT-B-32/openai."
            )
        return list(text(*texts))
    if model.prompts is not None:
        raise TargetError(
            f"{model.spec} compares images with text and has no classes of its own; give "
            'prompts, as in --text "a photo of a cat" --text "a photo of a dog".'
        )
    return [model.labels.find(name) for name in names] if names else None


def make_methods(names: Sequence[str] | None) -> list[Method]:
    """The methods of these names, or every method if there are none.

    Raises:
        MethodError: if a name is unknown.
    """
    from gradtoken.attribution import make_method, methods

    return [make_method(name) for name in names or methods()]


def usual_methods(methods: list[Method], model: Model) -> list[Method]:
    """Every method, without those of text prompts where a model reads no text."""
    return [method for method in methods if model.prompts is not None or not method.of_prompts]


def parse_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """`["beta=0.7", "layers=[-1]"]` as values: JSON where it is JSON, else text.

    Raises:
        MethodError: if one is not name=value.
    """
    options: dict[str, Any] = {}
    for pair in pairs or ():
        name, sign, text = pair.partition("=")
        if not sign or not name:
            raise MethodError(f"--option {pair!r} is not name=value, such as preset=sharp.")
        try:
            options[name.strip()] = json.loads(text)
        except ValueError:
            options[name.strip()] = None if text == "None" else text
    return options


def find_images(names: Iterable[str]) -> list[Path]:
    """Images named by files, folders (their images, not below) and patterns, in order.

    Raises:
        ImageError: if a folder or pattern holds no image, or a folder cannot be read.
    """
    paths: list[Path] = []
    for name in names:
        if not name:
            raise ImageError("an empty name is no image.")
        if os.path.isdir(name):
            paths += _images_in(Path(name))
        elif has_magic(name) and not os.path.exists(name):
            matches = sorted(Path(p) for p in glob(name, recursive=True) if Path(p).is_file())
            if not matches:
                raise ImageError(f"no file matches {name!r}.")
            paths += matches
        else:
            paths.append(Path(name))
    return list(dict.fromkeys(paths))


def _images_in(folder: Path) -> list[Path]:
    from gradtoken.images.load_image import SUFFIXES

    try:
        images = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        files = sorted(path for path in images if path.is_file())
    except OSError as error:
        raise ImageError(f"the folder {folder} cannot be read: {error.strerror}.") from None
    if not files:
        raise ImageError(f"there is no image in the folder {folder}.")
    return files


def check_writable(out: Path) -> None:
    """Make the folder of the results, and check before the work that files can be written to it.

    Raises:
        OutputError: naming the folder and the reason.
    """
    import tempfile

    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out, prefix=".gradtoken-"):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror or error}.") from None
