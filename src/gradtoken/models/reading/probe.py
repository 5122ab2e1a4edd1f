"""Which token is which patch, located by changing pixels and observing which tokens change.

Nothing is assumed of the order in which a model lays out its tokens, nor of how many others it puts
among them. Where each pixel belongs to one token (patch embeddings), the answer is exact. Where
tokens overlap (strided and convolutional stems), each token's centre is measured. Where a token
has seen the whole image already (the later stages of hierarchical models), the layout that the
model's family claims is compared with the centres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.images.box import Box
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.reading.embed import Embedded
from gradtoken.models.reading.owners import OF_PIXELS, Owners, owners
from gradtoken.models.verification import LocatedGrid
from gradtoken.precision import wide

Embed: TypeAlias = Callable[[Float[Tensor, "batch channels height width"]], Tensor]
"""From images to the tokens (B, T, D) whose patches are wanted."""

_CLEAN = 0.98
"""Of the pixels that are read, the share that must belong to one token for an exact answer."""
_STRAY = 0.35
"""How far a token's centre may be from its row or column, relative to their distance."""
_UNEVEN = 0.1
"""How far a row or column may be from even spacing, relative to it."""
_SNAP = 0.03
"""How far from the input's edges the cells may end, in cells, and still be said to cover it."""
_ALIKE = 0.7
"""Correlation of claimed and measured places from which on a claimed layout is confirmed."""
CHANGES = {torch.float16: 0.5, torch.bfloat16: 0.5}
"""Standard deviation of changes of pixels, by type; 0.1 in others."""
_INSENSITIVE = 1e-6
"""Tokens that change less than this, relative to the one that changes most, do not change."""
_ROUNDING = 1e-3
"""How near to a whole pixel an edge is said to be there."""
_DRAWS = 4
"""Of noise, at most, until the centres of tokens make a grid."""


def probe_patches(
    embed: Embed, start: Embedded, *, claimed: Callable[[int], PatchGrid], spec: str
) -> LocatedGrid:
    """Find the spatial tokens that a model makes of an input, and their places.

    Args:
        embed: runs the model up to those tokens.
        start: those of noise of the size, type and device of its input.
        claimed: the grid that the model's layout says, of a number of tokens; raises ModelError
            where it does not fit.
        spec: the model's name.

    Raises:
        ModelError: if the tokens that depend on pixels make no grid.
    """
    if start.local:
        exact = _exact(start)
        if exact is not None:
            return exact
    for places in _Places.measured(embed, start):
        if not start.local:
            break
        fitted = _fitted(places, start.pixels, "measured")
        if fitted is not None:
            return _sharpened(fitted, start)
    try:
        grid = claimed(places.count)
    except ModelError:
        raise ModelError(_no_grid(spec, places)) from None
    value = _agreement(places, grid)
    if not value >= _ALIKE:
        raise ModelError(_no_grid(spec, places))
    return LocatedGrid(grid, "confirmed", value, _ALIKE)


def _no_grid(spec: str, places: _Places) -> str:
    return (
        f"{int(places.used.sum())} of the {places.count} tokens of {spec} depend on the image's "
        "pixels, and their places make no regular grid of patches, so a map cannot be laid out; "
        "use a model that cuts the image into a grid."
    )


@dataclass(frozen=True)
class _Places:
    """The centre of the pixels that each token depends on, as fractions of the input's sides."""

    down: Float[Tensor, " tokens"]
    across: Float[Tensor, " tokens"]
    used: Tensor
    """Which tokens depend on pixels at all."""

    @property
    def count(self) -> int:
        return len(self.used)

    @classmethod
    def owned(cls, owner: Owners, tokens: int) -> _Places:
        """From the owner (H, W) of every pixel."""
        height, width = owner.token.shape
        at = owner.token.flatten()
        mine = at >= 0
        pixels = torch.arange(height * width, device=at.device)[mine]
        number = torch.zeros(tokens, device=at.device, dtype=torch.float64)
        number = number.index_add(0, at[mine], torch.ones_like(pixels, dtype=torch.float64))
        sums = [
            torch.zeros_like(number).index_add(0, at[mine], place.double() + 0.5)
            for place in (pixels // width, pixels % width)
        ]
        down, across = (s / number.clamp_min(1) for s in sums)
        return cls((down / height).cpu(), (across / width).cpu(), (number > 0).cpu())

    @classmethod
    def measured(cls, embed: Embed, start: Embedded) -> Iterator[_Places]:
        """From how much tokens change where noise is added to all pixels, and how much where its
        variance grows along one side of the input; of one draw of noise, of two, and so on.

        To first order a token's change is the sum of its pixels' shares, so the ratio of the two is
        the mean place of its pixels, weighted by their share.
        """
        like, base = start.pixels.detach(), wide(start.tokens.detach())
        generator = torch.Generator().manual_seed(1)
        down, across = ramps(like)
        sizes = [torch.zeros(base.shape[1], dtype=torch.float64) for _ in range(3)]
        for _ in range(_DRAWS):
            noise = torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)
            noise = noise * CHANGES.get(like.dtype, 0.1)
            for size, change in zip(sizes, (noise, noise * down, noise * across), strict=True):
                with torch.enable_grad():
                    changed = wide(embed(like + change).detach())
                size.add_((changed - base).double().square().sum(-1)[0].cpu())
            whole, below, right = sizes
            used = whole > _INSENSITIVE * whole.max()
            safe = torch.where(used, whole, 1)
            yield cls(below / safe, right / safe, used)


def ramps(like: Tensor) -> tuple[Float[Tensor, "height 1"], Float[Tensor, " width"]]:
    """Factors of noise whose variance grows down an image, and across it."""
    down, across = (
        ((torch.arange(side, device=like.device) + 0.5) / side).sqrt().to(like.dtype)
        for side in like.shape[-2:]
    )
    return down[:, None], across


def _exact(start: Embedded) -> LocatedGrid | None:
    """The grid, where nearly every pixel belongs to one token; None where gradients do not tell."""
    if not start.tokens.requires_grad:
        return None
    with torch.enable_grad():
        owner = owners(start.tokens, start.pixels, channels=1, near=OF_PIXELS, clean=_CLEAN)
    if owner.clean < _CLEAN:
        return None
    return _fitted(_Places.owned(owner, start.tokens.shape[1]), start.pixels, "exact")


def _sharpened(located: LocatedGrid, start: Embedded) -> LocatedGrid:
    """The same grid with its cells measured to the pixel, where two tokens' pixels tell them.

    They are inner ones, whose receptive fields do not end at the input's edge.
    """
    grid = located.grid
    rows, columns = grid.shape
    if min(grid.shape) < 4:
        return located
    if not start.tokens.requires_grad:
        return located
    centres = []
    for row, column in ((1, 1), (rows - 2, columns - 2)):
        with torch.enable_grad():
            token = start.tokens[0, grid.positions[row * columns + column]]
            centre = _centre(token, start.pixels)
        if centre is None:
            return located
        centres.append(centre)
    (top, left), (bottom, right) = centres
    down, across = (bottom - top) / (rows - 3), (right - left) / (columns - 3)
    cells = Box(
        left - 1.5 * across,
        top - 1.5 * down,
        left + (columns - 1.5) * across,
        top + (rows - 1.5) * down,
    )
    before = grid.cells or Box(0.0, 0.0, grid.size[1], grid.size[0])
    gaps = [abs(new - old) for new, old in zip(cells, before, strict=True)]
    if max(gaps) > _STRAY * min(down, across):
        return located
    return replace(located, grid=replace(grid, cells=_settled(cells, grid.size)))


def _centre(token: Float[Tensor, " dim"], pixels: Tensor) -> tuple[float, float] | None:
    """The centre of a token's receptive field; None where that ends at the input's edge."""
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randn(len(token), generator=generator, dtype=torch.float32).to(token)
    (grad,) = torch.autograd.grad((token * drawn).sum(), pixels, retain_graph=True)
    read = wide(grad)[0].abs().amax(0) > 0
    ends = []
    for axis in (1, 0):
        at = read.any(axis).nonzero()[:, 0].tolist()
        if not at or at[0] == 0 or at[-1] == read.shape[1 - axis] - 1:
            return None
        ends.append((at[0] + at[-1] + 1) / 2)
    return ends[0], ends[1]


def _fitted(places: _Places, like: Tensor, how: str) -> LocatedGrid | None:
    """The grid whose rows and columns the tokens' centres are, if there is one."""
    at = places.used.nonzero()[:, 0]
    height, width = like.shape[-2:]
    down, across = places.down[at].double(), places.across[at].double()
    for rows, columns in _shapes(len(at), (height, width)):
        by_row = down.argsort(stable=True).view(rows, columns)
        order = by_row.gather(1, across[by_row].argsort(dim=1, stable=True))
        vertical, horizontal = _axis(down[order].T, how), _axis(across[order], how)
        if vertical is not None and horizontal is not None:
            (top, bottom, stray_down), (left, right, stray_across) = vertical, horizontal
            cells = Box(left * width, top * height, right * width, bottom * height)
            grid = _grid((rows, columns), (height, width), places.count, at[order], cells)
            return LocatedGrid(grid, how, max(stray_down, stray_across), _STRAY)
    return None


def _shapes(count: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of so many tokens, those nearest to the input's shape first."""
    shapes = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    return sorted(shapes, key=lambda grid: abs(grid[0] * size[1] - grid[1] * size[0]))


def _axis(places: Float[Tensor, "others lines"], how: str) -> tuple[float, float, float] | None:
    """Start and end of the cells along one axis, and the largest distance from a cell's centre.

    None where tokens are not on evenly spaced lines. Of five lines or more the outer two are left
    out of this, because their receptive fields end at the input's edge.
    """
    lines = places.shape[1]
    if lines == 1:
        return 0.0, 1.0, 0.0
    inner = slice(1, -1) if lines > 4 and how != "exact" else slice(None)
    number = torch.arange(lines, dtype=places.dtype)
    centres = places.mean(0)
    at = number[inner] - number[inner].mean()
    step = float((at * centres[inner]).sum() / at.square().sum())
    start = float(centres[inner].mean()) - step * float(number[inner].mean())
    even = start + step * number
    stray = float((places - even)[:, inner].abs().max())
    uneven = float((centres - even)[inner].abs().max())
    allowed = _UNEVEN if how == "exact" else _STRAY
    if float(centres.diff().min()) <= 0 or stray > _STRAY * step or uneven > allowed * step:
        return None
    low, high = start - step / 2, start + step * (lines - 0.5)
    if abs(low) < _SNAP * step and abs(high - 1) < _SNAP * step:
        low, high = 0.0, 1.0
    return low, high, stray / step


def _grid(
    shape: tuple[int, int], size: tuple[int, int], tokens: int, order: Tensor, cells: Box
) -> PatchGrid:
    positions = tuple(order.flatten().tolist())
    last = tuple(range(tokens - len(positions), tokens))
    order_or_none = None if positions == last else positions
    return PatchGrid(shape, size, tokens, order_or_none, _settled(cells, size))


def _settled(cells: Box, size: tuple[int, int]) -> Box | None:
    """Cells without rounding: whole pixels where they nearly are, None where they cover all."""
    settled = Box(*(float(round(e)) if abs(e - round(e)) < _ROUNDING else e for e in cells))
    return None if tuple(settled) == (0.0, 0.0, size[1], size[0]) else settled


def _agreement(places: _Places, grid: PatchGrid) -> float:
    """The smaller correlation of a claimed grid's rows and columns with the measured places."""
    rows, columns = grid.shape
    at = torch.tensor(grid.positions)
    correlations = []
    for axis, side in ((places.down, 0), (places.across, 1)):
        claim = torch.arange(rows * columns).view(grid.shape)
        claim = (claim // columns if side == 0 else claim % columns).flatten().double()
        if grid.shape[side] > 1:
            correlations.append(
                float(torch.corrcoef(torch.stack([claim, axis[at].double()]))[0, 1])
            )
    return min(correlations, default=1.0)
