"""The place where a head averages tokens, located by the gradient of the output."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.layout import TokenLayout
from gradtoken.models.model import Model
from gradtoken.models.reading.observe import (
    Observation,
    module_ids,
    observe,
)
from gradtoken.models.reading.owners import owners
from gradtoken.models.verification import ReadingError
from gradtoken.tap.anatomy import Pool

_SAME = 1e-3


def class_tokens(rows: Sequence[int]) -> str:
    """Class tokens in words, by their number."""
    return "class token" if len(rows) == 1 else f"{len(rows)} class tokens"


@dataclass
class _Outputs:
    """The outputs of modules after the last block, call by call."""

    calls: list[tuple[nn.Module, int, Tensor]] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)

    def hook(self, module: nn.Module, _: Any, output: Any) -> Tensor | None:
        call = self.counts.get(id(module), 0)
        self.counts[id(module)] = call + 1
        if isinstance(output, Tensor) and output.ndim == 3 and output.requires_grad:
            self.calls.append((module, call, output))
            return output.clone()
        return None


def averaging(model: Model, layout: TokenLayout, grid: PatchGrid) -> Model:
    """The model with the place where its head averages: where all patches have the same gradient.

    Raises:
        ReadingError: if there is none.
    """
    blocks, outputs = model.anatomy.blocks, _Outputs()
    within = module_ids(blocks)
    modules = [part for part in model.module.modules() if id(part) not in within]
    modules = [part for part in modules if not list(part.children())]

    def hooks(stack: ExitStack) -> None:
        for part in modules:
            stack.callback(part.register_forward_hook(outputs.hook).remove)

    observed = observe([model], hooks=hooks)
    last = observed.records[0].outputs[len(blocks) - 1]
    places = [(blocks[-1], -1, observed.records[0].forwarded[len(blocks) - 1]), *outputs.calls]
    for module, call, tokens in places:
        average = _average_at(observed, tokens, last, grid)
        if average is None:
            continue
        rows = tuple(sorted({*average[0], *layout.rows}))
        whole = average[1]
        words = "mean of all tokens" if whole else "mean of patch tokens"
        if rows:
            words = f"{class_tokens(rows)} and {words}"
        if len(model.anatomy.reads) > 1:
            words = f"{words}, and class tokens of {len(model.anatomy.reads) - 1} earlier blocks"
        times = outputs.counts.get(id(module), 0)
        pool = Pool(module, call=call if call < 0 else call - times)
        return replace(
            model,
            anatomy=replace(model.anatomy, readout=words, pool=pool),
            layout=replace(layout, readout=rows, pool=0 if whole else max(layout.prefix, 1)),
        )
    raise ReadingError(
        f"{model.spec} ({type(model.module).__name__}) reads its class from all tokens, but not as "
        "their average, so its readout cannot be made out."
    )


def _average_at(
    observed: Observation, tokens: Tensor, last: Tensor, grid: PatchGrid
) -> tuple[tuple[int, ...], bool] | None:
    """Other tokens that the head reads beside an average, and whether that is of all tokens; None
    if it does not average here.
    """
    (grad,) = observed.gradients([tokens])
    if grad is None or len(grad) != 1:
        return None
    owned = owners(tokens, last).token.tolist()
    at = [owned[position] for position in grid.positions]
    if min(at) < 0:
        return None
    reference = grad[0, at[0]]
    size = reference.abs().max()
    same = (grad[0] - reference).abs().amax(-1) <= _SAME * size
    if not float(size) or not bool(same[at].all()):
        return None
    others = [i for i in grid.others if owned[i] >= 0]
    whole = bool(others) and all(bool(same[owned[i]]) for i in others)
    rows = [i for i in others if not whole and bool(grad[0, owned[i]].abs().any())]
    return tuple(rows), whole
