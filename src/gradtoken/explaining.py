"""`explain`: pictures and targets in, relevance maps out, through one forward."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from gradtoken.attribution import Method, make_method
from gradtoken.errors import ImageError, MethodError, ModelError
from gradtoken.explanation import Explanation
from gradtoken.forks import one_thread_in_forks
from gradtoken.geometry import Box
from gradtoken.models.model import Model
from gradtoken.preprocess import check_tensor
from gradtoken.sources import Source
from gradtoken.tap import wide
from gradtoken.targets import resolve
from gradtoken.trace import record


def explain(
    model: Model,
    images: Any,
    targets: Any = None,
    *,
    method: str | type[Method] | Method = "gradtoken",
    top_k: int = 1,
    **options: Any,
) -> Explanation:
    """Explain why a model gives its classes to pictures: one relevance map per image and target.

    The model runs forward once for all images and all targets (a second time for methods that
    backpropagate through it, such as `gradient="full"`), and is left exactly as it was.

    Args:
        model: from `load` or `wrap`.
        images: a path, a PIL image, an array (H, W, 3), a preprocessed tensor (3, H, W) or
            (B, 3, H, W), or a list of these.
        targets: None for the `top_k` predicted classes; "all" for every class; a class id or
            name, `contrast(a, b)`, `log_prob(c)` or a function of one image's logits; a
            list of these for all images, or one list per image. `text("a photo of a cat", …)` for
            models such as CLIP.
        method: a name from `methods()`, a `Method` class, or a method already made.
        top_k: how many predicted classes to explain where no targets are given.
        **options: the method's options, such as `preset="sharp"`.

    Returns:
        An `Explanation` with `tokens` (B, K, h, w), on the model's device.

    Raises:
        ImageError, TargetError, ModelError, MethodError: each says what is wrong and what to do.

    Example:
        >>> model = gradtoken.load("demo")
        >>> gradtoken.explain(model, "picture.jpg", ["banana", "rocket"]).save("out")
    """
    one_thread_in_forks()
    if not isinstance(model, Model):
        raise ModelError(
            f"explain() needs a Model, it got {type(model).__name__}; use load(…) or wrap(module)."
        )
    if isinstance(method, Method):
        if options:
            raise MethodError("options go with a method's name; this one is already made.")
        chosen = method
    else:
        chosen = make_method(method, **options)
    sources, boxes, batch = read_batch(model, images)
    trace = record(model, batch)
    logits = wide(trace.logits)
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(
            f"{model.spec} returned NaN or infinite logits; use dtype='float32' or 'bfloat16', or "
            "check its weights."
        )
    prompts = model.read_text if model.prompts is not None else None
    found = resolve(targets, logits, model.labels, top_k=top_k, prompts=prompts)
    with torch.no_grad():
        relevance = chosen(trace, found)
        if not bool(torch.isfinite(relevance).all()):
            raise MethodError(
                f"{chosen.name} gave NaN or infinite relevance for {model.spec}; use less extreme "
                "options, or check a target function of your own."
            )
        scores = found.scores(logits[:, None].expand(-1, found.count, -1))
        probabilities = found.probabilities(logits)
    return Explanation(
        tokens=relevance.detach().float().unflatten(-1, trace.grid).contiguous(),
        targets=found,
        labels=found.labels(model.labels),
        scores=scores,
        probabilities=probabilities,
        sources=sources,
        boxes=boxes,
        about=_about(model, chosen),
    )


def read_batch(model: Model, images: Any) -> tuple[list[Source], list[Box], Tensor]:
    """Whatever pictures a user gives, as sources, boxes and one preprocessed batch."""
    if isinstance(images, Tensor):
        batch = check_tensor(images)
        return _shown(model, batch)
    items = (
        list(images) if isinstance(images, Sequence) and not isinstance(images, str) else [images]
    )
    if not items:
        raise ImageError("the list of pictures is empty; give at least one.")
    parts = []
    for item in items:
        if isinstance(item, Tensor):
            parts.append(_shown(model, check_tensor(item)))
        else:
            source = Source.read(item)
            tensor = model.preprocess(source.picture)[None]
            parts.append(([source], [model.preprocess.box(source.picture.size)], tensor))
    shapes = {tuple(tensor.shape[1:]) for _, _, tensor in parts}
    if len(shapes) > 1:
        raise ImageError(
            f"the inputs have different shapes ({', '.join(map(str, sorted(shapes)))}) and cannot "
            "be one batch; explain them one by one."
        )
    sources = [source for part in parts for source in part[0]]
    boxes = [box for part in parts for box in part[1]]
    tensors = [part[2].to(model.device, model.dtype) for part in parts]
    return sources, boxes, torch.cat(tensors)


def _shown(model: Model, batch: Tensor) -> tuple[list[Source], list[Box], Tensor]:
    height, width = batch.shape[-2:]
    sources = [Source(model.preprocess.picture(tensor), kind="tensor") for tensor in batch]
    return sources, [Box(0.0, 0.0, float(width), float(height))] * len(batch), batch


def _about(model: Model, method: Method) -> dict[str, Any]:
    return {
        "versions": dict(_versions()),
        "model": {
            "spec": model.spec,
            "weights": model.weights,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
        },
        "method": {"name": method.name, "options": method.options()},
    }


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in (
        "gradtoken",
        "torch",
        "timm",
        "transformers",
        "torchvision",
        "open_clip_torch",
        "numpy",
        "pillow",
    ):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
