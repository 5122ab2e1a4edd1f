"""Which token depends on which site of an input."""

from __future__ import annotations

import torch

from gradtoken.models.reading.owners import Owners, owners


def test_owners_of_pixels() -> None:
    pixels = torch.randn(1, 3, 4, 6, requires_grad=True)
    patches = torch.nn.functional.unfold(pixels[..., :4], 2, stride=2).transpose(1, 2)
    tokens = torch.cat([torch.ones(1, 1, 12), patches.flip(1)], dim=1)
    actual = owners(tokens, pixels, channels=1)
    expected = torch.full((4, 6), Owners.NONE)
    expected[:, :4] = torch.tensor([[4, 3], [2, 1]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(actual.token, expected)
    assert actual.clean == 1


def test_owners_of_shared_sites_are_mixed() -> None:
    before = torch.randn(1, 5, 8, requires_grad=True)
    mixed = torch.stack([before[:, 0], before[:, 1] + before[:, 2], before[:, 2], before[:, 4]], 1)
    assert owners(mixed, before).token.tolist() == [0, 1, Owners.MIXED, Owners.NONE, 3]


def test_owners_in_half_precision() -> None:
    before = torch.randn(1, 300, 16).bfloat16().requires_grad_()
    order = torch.randperm(300)
    after = torch.nn.functional.layer_norm(before[:, order], (16,))
    assert torch.equal(order[owners(after, before).token], torch.arange(300))


def test_owners_stop_where_too_few_sites_can_be_clean() -> None:
    """Windows of 3 pixels every 2 share one pixel in three: a plain pass and one digit show it."""
    pixels = torch.randn(1, 1, 1, 33, requires_grad=True)
    passes = []
    pixels.register_hook(lambda grad: passes.append(grad))
    tokens = pixels[0, 0].unfold(1, 3, 2)
    assert tokens.shape == (1, 16, 3)
    all_digits = owners(tokens, pixels, channels=1)
    assert len(passes) == 1 + 4
    assert 0.5 < all_digits.clean < 0.98
    assert owners(tokens, pixels, channels=1, clean=0.98).clean < 0.98
    assert len(passes) == 5 + 2
