"""Blocks that write in place, each with a twin that computes the same and writes nothing.

A spelling says how a block adds to its tokens; `timm_vit`, `hf_vit` and `own_vit` build seeded
float64 models whose blocks add in this way, layer scale, activation, attention and tail included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.zoo import seeded

Sum: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The tokens x after what a sublayer made of them, a, is added."""


def plain(x: Tensor, a: Tensor) -> Tensor:
    return x + a


def onto_tokens(x: Tensor, a: Tensor) -> Tensor:
    x += a
    return x


def onto_made(x: Tensor, a: Tensor) -> Tensor:
    a += x
    return a


def method(x: Tensor, a: Tensor) -> Tensor:
    x.add_(a)
    return x


def out_is_tokens(x: Tensor, a: Tensor) -> Tensor:
    torch.add(x, a, out=x)
    return x


def out_is_new(x: Tensor, a: Tensor) -> Tensor:
    made = torch.empty_like(x)
    torch.add(x, a, out=made)
    return made


def out_is_empty(x: Tensor, a: Tensor) -> Tensor:
    return torch.add(x, a, out=x.new_empty(0))


def assigned(x: Tensor, a: Tensor) -> Tensor:
    x[:] = x + a
    return x


def copied(x: Tensor, a: Tensor) -> Tensor:
    return x.copy_(x + a)


def in_parts(x: Tensor, a: Tensor) -> Tensor:
    x[:, :1] += a[:, :1]
    x[:, 1:] += a[:, 1:]
    return x


def in_parts_plainly(x: Tensor, a: Tensor) -> Tensor:
    return torch.cat([x[:, :1] + a[:, :1], x[:, 1:] + a[:, 1:]], dim=1)


SUMS: dict[str, tuple[Sum, Sum]] = {
    "x += a": (onto_tokens, plain),
    "a += x": (onto_made, plain),
    "x.add_(a)": (method, plain),
    "torch.add(x, a, out=x)": (out_is_tokens, plain),
    "torch.add(x, a, out=new)": (out_is_new, plain),
    "torch.add(x, a, out=empty)": (out_is_empty, plain),
    "x[:] = x + a": (assigned, plain),
    "x.copy_(x + a)": (copied, plain),
    "x[:, 1:] += a[:, 1:]": (in_parts, in_parts_plainly),
}
"""How tokens are added to, and the twin that writes nothing."""


class Adding(Block):
    """timm's block with its sums in one spelling."""

    add: Sum = staticmethod(plain)

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        x = self.add(x, self.ls1(self.attn(self.norm1(x))))
        return self.add(x, self.ls2(self.mlp(self.norm2(x))))


class Scaled(nn.Module):
    """Layer scale by a method that writes, or by an operator."""

    def __init__(self, gamma: nn.Parameter, writes: bool) -> None:
        super().__init__()
        self.gamma, self.writes = gamma, writes

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.gamma) if self.writes else x * self.gamma


class Attending(Attention):
    """timm's attention, its queries and its output scaled."""

    writes = True

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.writes:
            q *= self.scale
            x = F.scaled_dot_product_attention(q, k, v, scale=1.0)
            x *= 1.5
            x = x.transpose(1, 2).flatten(2)
            x.mul_(0.5)
        else:
            x = F.scaled_dot_product_attention(q * self.scale, k, v, scale=1.0) * 1.5
            x = x.transpose(1, 2).flatten(2) * 0.5
        return self.proj(x)


class Whole(VisionTransformer):
    """timm's ViT whose input, positions and last tokens are written to."""

    writes = True

    def forward(self, x: Tensor) -> Tensor:
        if self.writes:
            x.sub_(0.1)
            x /= 1.2
            x = super()._pos_embed(self.patch_embed(x))
            x *= 0.9
            for block in self.blocks:
                x = block(x)
            x = self.norm(x)
            x *= 1.1
            x.add_(0.05)
            return self.head(x[:, 0])
        x = super()._pos_embed(self.patch_embed((x - 0.1) / 1.2)) * 0.9
        for block in self.blocks:
            x = block(x)
        return self.head((self.norm(x) * 1.1 + 0.05)[:, 0])


def small_vit() -> VisionTransformer:
    return VisionTransformer(
        img_size=64, embed_dim=32, depth=3, num_heads=2, num_classes=5, init_values=0.5
    )


def timm_vit(add: Sum = plain) -> nn.Module:
    module = seeded(small_vit)
    for block in module.blocks:
        block.__class__, block.add = Adding, add
    return module


def with_scale(writes: bool) -> nn.Module:
    module = timm_vit()
    for block in module.blocks:
        block.ls1, block.ls2 = Scaled(block.ls1.gamma, writes), Scaled(block.ls2.gamma, writes)
    return module


def with_activation(writes: bool) -> nn.Module:
    module = timm_vit()
    for block in module.blocks:
        block.mlp.act = nn.ReLU(inplace=writes)
    return module


def with_attention(writes: bool) -> nn.Module:
    module = timm_vit()
    for block in module.blocks:
        block.attn.__class__, block.attn.writes = Attending, writes
    return module


def with_ends(writes: bool) -> nn.Module:
    module = timm_vit()
    module.__class__, module.writes = Whole, writes
    return module


PLACES: dict[str, Callable[[bool], nn.Module]] = {
    "layer scale": with_scale,
    "activation": with_activation,
    "attention": with_attention,
    "input, positions and tail": with_ends,
}
"""Where else a timm ViT writes: builders of the model that does, and of its twin."""


def hf_vit(add: Sum = plain) -> nn.Module:
    import transformers
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.modeling_vit import ViTLayer

    class Layer(ViTLayer):
        def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            made = self.attention(self.layernorm_before(hidden_states))
            hidden_states = add(hidden_states, made[0] if isinstance(made, tuple) else made)
            normed = self.layernorm_after(hidden_states)
            made = self.mlp(normed) if hasattr(self, "mlp") else self.before_mlp(normed)
            hidden_states = add(hidden_states, made)
            return (hidden_states,) if transformers.__version__ < "5" else hidden_states

        def before_mlp(self, normed: Tensor) -> Tensor:
            """The same in versions of transformers whose layers have its two halves."""
            return self.output.dense(self.intermediate(normed))

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        num_labels=5,
    )
    module = seeded(lambda: ViTForImageClassification(config))
    for part in module.modules():
        if type(part) is ViTLayer:
            part.__class__ = Layer
    return module


class OwnBlock(nn.Module):
    """A user's block, with torch's own attention."""

    add: Sum = staticmethod(plain)

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = self.add(x, self.attention(y, y, y, need_weights=False)[0])
        return self.add(x, self.mlp(self.norm2(x)))


class Own(nn.Module):
    """A user's transformer; its head reads a class token or the mean of the patches."""

    def __init__(self, mean: bool = False) -> None:
        super().__init__()
        self.mean = mean
        self.embed = nn.Conv2d(3, 32, 16, 16)
        self.start = nn.Parameter(torch.zeros(1, 1, 32))
        self.position = nn.Parameter(torch.zeros(1, 17, 32))
        self.layers = nn.ModuleList([OwnBlock() for _ in range(3)])
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1) + self.position
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return self.head(x[:, 1:].mean(1) if self.mean else x[:, 0])


def own_vit(add: Sum = plain, *, mean: bool = False) -> nn.Module:
    module = seeded(lambda: Own(mean))
    for layer in module.layers:
        layer.add = add
    return module
