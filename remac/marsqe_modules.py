"""The modules of MarsQE (paper sections IV-B and IV-C): matching and transfer of textures (TEM), their fusing (TFM), attentions (CA, SAM), the
post-enhancement's QEM and its non-local module. What looks further than a convolution stays inside a cell."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remac.decoder import conv

BLOCK = 4                     # d: sides of a block of features that TEM moves
CONDITIONS = 4                # numbers that describe the quantisation


def to_cells(x: Tensor, size: int) -> Tensor:
    """float[B,C,H,W] -> float[B*H/size*W/size,C,size,size], row by row."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // size, size, w // size, size).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(-1, c, size, size)


def from_cells(x: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `to_cells`; height and width of the result."""
    c = x.shape[1]
    x = x.reshape(-1, height // size, width // size, c, size, size).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(-1, c, height, width)


def blocks_of(x: Tensor) -> Tensor:
    """Non-overlapping d x d blocks as vectors: float[P,C,s,s] -> float[P,(s/d)^2,C*d*d]."""
    p, c, s, _ = x.shape
    n = s // BLOCK
    return x.reshape(p, c, n, BLOCK, n, BLOCK).permute(0, 2, 4, 1, 3, 5).reshape(p, n * n, c * BLOCK * BLOCK)


def from_blocks(x: Tensor, channels: int) -> Tensor:
    """The inverse of `blocks_of`."""
    p, count, _ = x.shape
    n = math.isqrt(count)
    return x.reshape(p, n, n, channels, BLOCK, BLOCK).permute(0, 3, 1, 4, 2, 5).reshape(p, channels, n * BLOCK, n * BLOCK)


def extract_texture(compressed: Tensor, reference: Tensor, raw: Tensor) -> Tensor:
    """TEM, equations (2) to (4): float[P,C,s,s] of the picture, the compressed and the raw reference -> F_trans float[P,C,s,s]."""
    query, key = (F.normalize(blocks_of(x), dim=2) for x in (compressed, reference))
    score, index = (query @ key.transpose(1, 2)).max(2)
    value = blocks_of(raw)
    moved = torch.gather(value, 1, index[:, :, None].expand(-1, -1, value.shape[2]))
    return from_blocks(moved * score[:, :, None].to(moved.dtype), compressed.shape[1])


class Norm(nn.LayerNorm):
    """LN over the channels of float[B,C,h,w]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelAttention(nn.Module):
    """CA [37] within cells of `cell` positions: a weight in 0..1 for every channel, float[B,C,h,w] -> float[B,C,h,w]."""

    def __init__(self, channels: int, cell: int) -> None:
        super().__init__()
        self.cell = cell
        self.reduce, self.expand = conv(channels, channels // 8, 1), conv(channels // 8, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.sigmoid(self.expand(F.relu(self.reduce(F.avg_pool2d(x, self.cell)))))
        return F.interpolate(weight, scale_factor=float(self.cell), mode="nearest")


class TextureFusing(nn.Module):
    """TFM, equation (5). Where there is no reference F_res is zero; the attention starts nearly closed, so that references come in gently."""

    def __init__(self, channels: int, cell: int) -> None:
        super().__init__()
        self.transfer, self.fuse, self.attention = conv(channels, channels), conv(channels, channels), ChannelAttention(channels, cell)
        nn.init.zeros_(self.transfer.weight)
        assert self.attention.expand.bias is not None
        nn.init.constant_(self.attention.expand.bias, -3.0)

    def forward(self, decoded: Tensor, transferred: Tensor | None, share: Tensor | None = None) -> Tensor:
        """Features float[B,C,h,w], F_trans likewise, and how much of the residual counts, float[B,1,h,w]."""
        if transferred is not None:
            residual = (self.transfer(transferred) - decoded) * self.attention(decoded)
            decoded = decoded + (residual if share is None else residual * share)
        fused: Tensor = self.fuse(decoded)
        return fused


class TextureAddition(nn.Module):
    """What stands in for TFM in the paper's Table V."""

    def forward(self, decoded: Tensor, transferred: Tensor | None, share: Tensor | None = None) -> Tensor:
        """See `TextureFusing`."""
        if transferred is None:
            return decoded
        return decoded + (transferred if share is None else transferred * share)


class Fusion(nn.Module):
    """TFM where there is never a reference."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fuse = conv(channels, channels)

    def forward(self, decoded: Tensor, transferred: None = None, share: None = None) -> Tensor:
        """See `TextureFusing`."""
        fused: Tensor = self.fuse(decoded)
        return fused


# Of channels and the sides of a cell. "sum": networks C and D of the paper's Table V.
FUSINGS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "tfm": TextureFusing, "sum": lambda channels, cell: TextureAddition(), "none": lambda channels, cell: Fusion(channels)}


class SupervisedAttention(nn.Module):
    """SAM [36]: features float[B,C,H/2,W/2] and the compressed picture -> refined features and I_enh, both in activation units."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.image, self.gate, self.feature = conv(channels, 12), conv(12, channels, 1), conv(channels, channels, 1)
        nn.init.zeros_(self.image.weight)

    def forward(self, features: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        enhanced = F.pixel_shuffle(self.image(features), 2) + picture
        gate = torch.sigmoid(self.gate(F.pixel_unshuffle(enhanced, 2)))
        return features + self.feature(features) * gate, enhanced


class QualityEnhancement(nn.Module):
    """QEM (figure 7c): x + CA(conv(GELU(conv(LN(x)))))."""

    def __init__(self, channels: int, cell: int) -> None:
        super().__init__()
        self.norm, self.attention = Norm(channels), ChannelAttention(channels, cell)
        self.first, self.second = conv(channels, channels), conv(channels, channels)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.gelu(self.first(self.norm(x)), approximate="tanh"))
        return x + y * self.attention(y)


class NonLocal(nn.Module):
    """NLM, equation (6): attention among positions of one class and one cell."""

    KEYS = 64

    def __init__(self, channels: int, cell: int) -> None:
        super().__init__()
        self.cell = cell
        self.query, self.key, self.value = (conv(channels, n, 1) for n in (self.KEYS, self.KEYS, channels))
        self.project, self.norm, self.feed_norm = conv(channels, channels), Norm(channels), Norm(channels)
        self.widen, self.narrow = conv(channels, 2 * channels, 1), conv(2 * channels, channels, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.narrow.weight)

    def attend(self, x: Tensor, classes: Tensor) -> Tensor:
        """L_NLA: float[B,C,h,w] with classes int64[B,h,w] -> float[B,C,h,w]."""
        h, w = x.shape[2:]
        query, key, value = (to_cells(layer(x), self.cell).flatten(2) for layer in (self.query, self.key, self.value))
        kind = to_cells(classes[:, None], self.cell).flatten(1)
        logits = (query.transpose(1, 2) @ key).float() * self.KEYS ** -0.5
        logits = logits.masked_fill(kind[:, :, None] != kind[:, None, :], -1e4)
        mixed = value @ torch.softmax(logits, 2).to(value.dtype).transpose(1, 2)
        return from_cells(mixed.reshape(-1, x.shape[1], self.cell, self.cell), self.cell, h, w)

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        x = x + self.project(self.attend(self.norm(x), classes))
        return x + self.narrow(F.gelu(self.widen(self.feed_norm(x)), approximate="tanh"))


class Modulation(nn.Module):
    """Scale and offset of every channel from the description of the quantisation; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(CONDITIONS, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, offset = self.linear(condition).chunk(2, 1)
        return x * (1 + scale[:, :, None, None]) + offset[:, :, None, None]
