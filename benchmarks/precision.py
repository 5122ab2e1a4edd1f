"""How far a map in half precision is from the same in float64, for every method.

    python benchmarks/precision.py
    python benchmarks/precision.py --model MODEL --images FOLDER

Each map is of the class with the highest logit in float64, and explains its logit. Printed are the
smallest Pearson correlations over the images between a method's map in a precision (the model's own
type, or autocast around a float32 model) and in float64: first of the model whose weights and
pixels were rounded to that precision, which tells what the method loses by computing in it, then of
the model as it was, which tells what rounding the weights does too. Methods that sample or mask
are run short.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from torch import Tensor

import gradtoken
from gradtoken.datasets import Scenes
from gradtoken.errors import MethodError
from gradtoken.images.load_image import load_image
from gradtoken.models import Model

PRECISIONS = ("float32", "bfloat16", "float16", "autocast")
OPTIONS: dict[str, dict[str, object]] = {
    "gradient-shap": {"samples": 4},
    "integrated-gradients": {"steps": 4},
    "occlusion": {"window": 7, "stride": 7},
    "rise": {"masks": 32},
    "smoothgrad": {"samples": 4},
    "vit-cx": {"distance": 0.1},
}


def stored(precision: str) -> torch.dtype:
    """The type of the weights; under autocast they stay in float32."""
    dtype: torch.dtype = getattr(torch, "float32" if precision == "autocast" else precision)
    return dtype


def converted(model: Model, *dtypes: torch.dtype) -> Model:
    """A copy of the model, converted to some types one after the other, and read anew."""
    module = copy.deepcopy(model.module)
    for dtype in dtypes:
        module = module.to(dtype)
    return gradtoken.wrap(module, preprocess=model.preprocess, labels=list(model.labels))


def around(model: Model, precision: str) -> AbstractContextManager[object]:
    """What a call in a precision runs in."""
    if precision == "autocast":
        return torch.autocast(model.device.type, torch.bfloat16)
    return nullcontext()


def maps(
    model: Model, precision: str, method: str, pixels: Tensor, classes: list[list[int]]
) -> Float[Tensor, "images tokens"] | str:
    """A method's maps, or why there are none."""
    targets = {"target": "logit"} if method == "gradtoken" else {}
    try:
        with around(model, precision):
            explanation = gradtoken.explain(
                model, pixels, classes, method=method, **OPTIONS.get(method, {}), **targets
            )
    except MethodError as error:
        return str(error)
    return explanation.tokens[:, 0].flatten(1).double()


def agreement(
    model: Model, pixels: Float[Tensor, "images channels h w"], methods: Sequence[str]
) -> dict[str, dict[str, str]]:
    """By method and precision, the smallest correlations over the images, or why there are none.

    Args:
        pixels: preprocessed images in float64.
    """
    whole = converted(model, torch.float64)
    classes = [[int(best)] for best in whole(pixels).argmax(-1)]
    results: dict[str, dict[str, str]] = {method: {} for method in methods}
    expected = {method: maps(whole, "float64", method, pixels, classes) for method in methods}
    for precision in track(PRECISIONS, "precisions", console=Console(stderr=True)):
        dtype = stored(precision)
        low, rounded = converted(model, dtype), converted(model, dtype, torch.float64)
        for method in methods:
            one = maps(low, precision, method, pixels.to(dtype), classes)
            same = maps(rounded, "float64", method, pixels.to(dtype).double(), classes)
            results[method][precision] = " / ".join(
                exact
                if isinstance(exact, str)
                else one
                if isinstance(one, str)
                else f"{worst(one, exact):.4f}"
                for exact in (same, expected[method])
            )
    return results


def worst(one: Float[Tensor, "images tokens"], other: Float[Tensor, "images tokens"]) -> float:
    """The smallest correlation of two maps of an image; NaN if one is flat."""
    pairs = zip(one, other, strict=True)
    return min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs)


def table(results: dict[str, dict[str, str]]) -> list[str]:
    """A row for each method."""
    lines = [f"| method | {' | '.join(PRECISIONS)} |", "|---" * (len(PRECISIONS) + 1) + "|"]
    for method, by_precision in results.items():
        lines.append(f"| {method} | {' | '.join(by_precision.values())} |")
    return lines


def images(model: Model, folder: Path | None, count: int) -> Float[Tensor, "images c h w"]:
    """Preprocessed images of a folder, or bundled scenes."""
    if folder is None:
        scenes = Scenes("test", objects=(2, 3))
        shown = [scenes[index].image for index in range(count)]
        return torch.stack([model.preprocess(image) for image in shown]).double()
    files = sorted(path for path in folder.iterdir() if path.is_file())[:count]
    return torch.stack([model.preprocess(load_image(path)) for path in files]).double()


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--images", type=Path, help="a folder of images; None is bundled scenes")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    model = gradtoken.load(args.model, device=args.device)
    pixels = images(model, args.images, args.count)
    names = [name for name, kind in gradtoken.methods().items() if not kind.of_prompts]
    print("\n".join(table(agreement(model, pixels, names))))


if __name__ == "__main__":
    main()
