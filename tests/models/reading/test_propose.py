"""Modules of no known library are read by watching them at work."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor, resize

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.models.layout import TokenLayout
from tests.models.zoo import seeded
from tests.snapshot import Snapshot


class Block(nn.Module):
    def __init__(self, dim: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixed, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.think = nn.Sequential(nn.Linear(dim, 64), nn.GELU(), nn.Linear(64, dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mixed(self.before(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        x = x + self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return x + self.think(self.after(x))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class Home(nn.Module):
    """A user's own transformer; `read` is how its head takes the tokens."""

    def __init__(self, read: str = "class", prefix: int = 1, block: type[nn.Module] = Block):
        super().__init__()
        self.read, self.count = read, prefix
        self.embed = nn.Conv2d(3, 32, 16, 16)
        self.start = nn.Parameter(torch.zeros(1, prefix, 32))
        self.position = nn.Parameter(torch.zeros(1, 16 + prefix, 32))
        self.layers = nn.ModuleList([block() for _ in range(3)])
        self.norm = nn.LayerNorm(32)
        self.pool = nn.MultiheadAttention(32, 2, batch_first=True)
        self.query = nn.Parameter(torch.zeros(1, 1, 32))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1) + self.position
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        if self.read == "class":
            return self.head(x[:, 0])
        if self.read == "mean":
            return self.head(x[:, self.count :].mean(1))
        if self.read == "all":
            return self.head(x.mean(1))
        if self.read == "max":
            return self.head(x.amax(1))
        if self.read == "last":
            return self.head(x[:, self.count - 1])
        query = self.query.expand(len(x), -1, -1)
        return self.head(self.pool(query, x, x)[0][:, 0])


def preprocess(image: Image.Image) -> Tensor:
    return pil_to_tensor(resize(image, [64, 64])).double() / 255 - 0.5


@pytest.fixture
def photograph() -> Image.Image:
    return Image.effect_noise((90, 70), 80).convert("RGB")


@pytest.mark.parametrize(
    ("read", "prefix", "readout"),
    [
        ("class", 1, "class token"),
        ("class", 5, "class token"),
        ("class", 22, "class token"),
        ("last", 3, "class token"),
        ("mean", 1, "mean of patch tokens"),
        ("mean", 0, "mean of patch tokens"),
        ("all", 1, "mean of all tokens"),
        ("attention", 0, "attention pool"),
    ],
)
def test_propose_reads_unknown_module(
    read: str, prefix: int, readout: str, photograph: Image.Image
) -> None:
    module = seeded(lambda: Home(read, prefix))
    before = Snapshot(module)
    model = gradtoken.wrap(module, preprocess=preprocess)
    before.check(module)
    assert model.anatomy.readout == readout
    assert model.layout.prefix == prefix
    rows = {"class": (0,), "last": (prefix - 1,)}
    assert model.layout.rows == rows.get(read, ())
    assert len(model.labels) == 5
    actual = gradtoken.explain(model, photograph, [1, 2])
    assert actual.tokens.shape == (1, 2, 4, 4)
    one, other = actual.tokens[0].flatten(1)
    assert (one - other).abs().max() > 0.1 * one.abs().max()
    before.check(module)


def test_wrap_unknown_module_embeds_its_image_five_times() -> None:
    """To list the blocks, to propose, to locate the patches (and see that no attention is before
    them), and, of the reading proposed, to locate them and to verify."""
    module, embedded = seeded(Home), []
    module.embed.register_forward_pre_hook(lambda *_: embedded.append(1))
    gradtoken.wrap(module, preprocess=preprocess)
    assert len(embedded) == 5


def test_propose_reads_torch_encoder_without_fast_path(photograph: Image.Image) -> None:
    class Encoder(Home):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(32, 2, 64, 0.1, batch_first=True, norm_first=True)
            self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).layers

    model = gradtoken.wrap(seeded(Encoder), preprocess=preprocess)
    assert (model.anatomy.readout, len(model.anatomy.blocks)) == ("class token", 3)
    stream, full = (
        gradtoken.explain(model, photograph, [1, 2], gradient=kind, layers=2).tokens
        for kind in ("stream", "full")
    )
    torch.testing.assert_close(stream, full, rtol=1e-5, atol=1e-9)


def test_wrap_takes_requested_layout(photograph: Image.Image) -> None:
    module = seeded(lambda: Home("class", 3))
    layout = TokenLayout(patch=(16, 16), prefix=3)
    model = gradtoken.wrap(module, preprocess=preprocess, layout=layout)
    assert model.layout is layout
    assert gradtoken.explain(model, photograph, 1).tokens.shape == (1, 1, 4, 4)


def test_wrap_rejects_unknown_module_without_preprocessing() -> None:
    with pytest.raises(ModelError, match=r"of no library that gradtoken knows.*preprocess="):
        gradtoken.wrap(Home())


class ByHand(Block):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Home("max"), "not as their average"),
        (Home(block=ByHand), "no attention was seen in it, because it has none or computes it by"),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "not a Vision Transformer that can be read"),
        (nn.Linear(2, 2), r"Linear cannot run on a batch of shape \(1, 3, 64, 64\)"),
    ],
)
def test_propose_rejects_unreadable_module(module: nn.Module, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        gradtoken.wrap(seeded(lambda: module), preprocess=preprocess)
