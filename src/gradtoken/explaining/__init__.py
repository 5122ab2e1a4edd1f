"""`explain` and `explain_each`: relevance maps of images, for some targets each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from gradtoken.attribution import Method
from gradtoken.explaining.job import Job, OnError, Progress
from gradtoken.explanation.concatenation import concatenate
from gradtoken.explanation.explanation import Explanation
from gradtoken.models.model import Model


def explain(
    model: Model,
    images: Any,
    targets: Any = None,
    *,
    method: str | type[Method] | Method = "gradtoken",
    top_k: int = 1,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Explanation:
    """Explain a model's classes of images: a relevance map for each image and target.

    Each image goes through the model once for all its targets (a second time for methods that
    backpropagate through it, such as `gradient="full"`). The model is not changed.

    Args:
        model: from `load` or `wrap`.
        images: a path, an image file's bytes, a PIL image, an array (H, W, 3), a preprocessed
            tensor (3, H, W) or (B, 3, H, W), or a list of these; for a model of C channels, C in
            the place of 3 (files and PIL images for one and three channels).
        targets: None for the `top_k` predicted classes; "all" for every class; `above(p)` for
            every class with a higher probability; a class id or name, `contrast(a, b)`,
            `log_prob(c)`, `finer(c)` or a function of one image's logits; a list of these for all
            images, or one list per image, each of the same length. Of tensors and arrays, integers
            are ids, and bools (or floats 0.0 and 1.0), one for each class, mark the classes to
            explain (multi-hot rows). `text("a photo of a cat", …)` for models such as CLIP.
        method: a name from `methods()`, a `Method` class, or a method already made.
        top_k: the number of predicted classes to explain where no targets are given.
        batch_size: the number of images that go through the model at once; "auto" takes what fits
            into memory, and on a CPU no more than is faster.
        workers: processes that decode and preprocess while the model computes; None starts them
            for long lists of images, where processes can be forked.
        progress: called with the number of images done, and of all.
        **options: the method's options, such as `preset="sharp"`.

    Returns:
        An `Explanation` with `tokens` (B, K, h, w), on the model's device.

    Raises:
        ImageError, TargetError, ModelError, MethodError: each says what is wrong and what to do.

    Example:
        >>> model = gradtoken.load("demo")
        >>> gradtoken.explain(model, "image.jpg", ["banana", "rocket"]).save("out")
    """
    job = Job(model, images, targets, method, top_k, batch_size, workers, options)
    parts: list[Explanation] = []
    with model.evaluating():
        for explanation in job.run(combined=True, progress=progress):
            if not parts:
                job.check_memory(explanation)
            parts.append(explanation)
    return concatenate(parts)


def explain_each(
    model: Model,
    images: Any,
    targets: Any = None,
    *,
    method: str | type[Method] | Method = "gradtoken",
    top_k: int = 1,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    on_error: OnError | None = None,
    **options: Any,
) -> Iterator[Explanation]:
    """As `explain`, image by image: for more images or maps than fit into memory at once.

    Images still go through the model in batches, and may differ in the shape of their input and
    in the number of their targets.

    Args:
        model: from `load` or `wrap`.
        images: as for `explain`; a list of B images.
        targets: as for `explain`; lists for each image may have different lengths.
        method: a name from `methods()`, a `Method` class, or a method already made.
        top_k: the number of predicted classes to explain where no targets are given.
        batch_size: the number of images that go through the model at once, or "auto".
        workers: processes that decode and preprocess; None starts them where they help.
        progress: called with the number of images done, and of all.
        on_error: called with the position of each image that cannot be read, or that has no class
            above p where `above(p)` is requested, and the reason (an `ImageError`, a
            `TargetError`); it is then left out. Without it, the error is raised.
        **options: the method's options, such as `preset="sharp"`.

    Yields:
        An `Explanation` of one image, in order.

    Example:
        >>> for explanation in gradtoken.explain_each(model, paths, "all"):
        ...     strongest = explanation.tokens[0].amax(dim=(1, 2)).topk(5)
    """
    job = Job(model, images, targets, method, top_k, batch_size, workers, options)
    return job.run(combined=False, progress=progress, on_error=on_error)
