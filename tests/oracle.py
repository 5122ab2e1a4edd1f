"""A timm ViT written out plainly, one token and one head at a time: the tests' reference.

Nothing of gradtoken is used here. `Written` runs a module's weights through equations; `stream`
lets the class token alone run through the blocks while every other token's keys and values stay as
they were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Block:
    """What one block did: attention (H, N, N), values (H, N, d), outputs (H, N, d)."""

    attention: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    entering: Tensor


@dataclass
class Written:
    module: torch.nn.Module
    image: Tensor

    def embed(self) -> Tensor:
        module = self.module
        patches = module.patch_embed(self.image[None])
        return module.norm_pre(module._pos_embed(patches))[0]

    def heads(self, block: torch.nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attn = block.attn
        width = attn.head_dim
        mixed = F.linear(block.norm1(tokens), attn.qkv.weight, attn.qkv.bias)
        q, k, v = (
            part.view(len(tokens), attn.num_heads, width).transpose(0, 1)
            for part in mixed.chunk(3, dim=-1)
        )
        return attn.q_norm(q), attn.k_norm(k), v

    def after(self, block: torch.nn.Module, tokens: Tensor, output: Tensor) -> Tensor:
        joined = output.transpose(0, 1).reshape(len(tokens), -1)
        tokens = tokens + block.ls1(block.attn.proj(joined))
        return tokens + block.ls2(block.mlp(block.norm2(tokens)))

    def logits(self, tokens: Tensor) -> Tensor:
        return self.module.head(self.module.norm(tokens)[0])

    def forward(self, extra: list[Tensor] | None = None) -> tuple[list[Block], Tensor]:
        """All blocks, and the logits; `extra[l]` (H, d) is added to what block l gives row 0."""
        tokens, blocks = self.embed(), []
        for index, block in enumerate(self.module.blocks):
            q, k, v = self.heads(block, tokens)
            scale = math.sqrt(q.shape[-1])
            attention = torch.stack(
                [(q[head] @ k[head].T / scale).softmax(dim=-1) for head in range(len(q))]
            )
            output = torch.stack([attention[head] @ v[head] for head in range(len(v))])
            if extra is not None:
                output = torch.cat([output[:, :1] + extra[index][:, None], output[:, 1:]], dim=1)
            blocks.append(Block(attention, k, v, output, tokens))
            tokens = self.after(block, tokens, output)
        return blocks, self.logits(tokens)

    def stream(self, context: list[Block], extra: list[Tensor]) -> Tensor:
        """Logits of the class token alone among the other tokens' frozen keys and values."""
        token = context[0].entering[:1]
        for block, frozen, added in zip(self.module.blocks, context, extra, strict=True):
            q, k, v = self.heads(block, token)
            keys = torch.cat([k, frozen.key[:, 1:].detach()], dim=1)
            values = torch.cat([v, frozen.value[:, 1:].detach()], dim=1)
            attention = (q @ keys.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
            token = self.after(block, token, attention @ values + added[:, None])
        return self.logits(token)

    def gradients(self, score: object, *, full: bool) -> tuple[list[Block], list[Tensor]]:
        """gamma (H, d) per block: the gradient of score(logits) by what each head writes."""
        context, _ = self.forward()
        extra = [torch.zeros_like(b.output[:, 0]).requires_grad_() for b in context]
        logits = self.forward(extra)[1] if full else self.stream(context, extra)
        return context, list(torch.autograd.grad(score(logits), extra))
