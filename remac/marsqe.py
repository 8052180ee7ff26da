"""MarsQE (paper sections IV-B and IV-C): enhancement of decoded pictures with references of the same terrain class.

Level i works at 1/2, 1/4 and 1/8 of the picture's sides. The picture is a grid of cells of S = 128 pixels; matching (TEM), channel attention and the
non-local module stay inside a cell, so that a tile whose corner lies on the grid gives what the whole picture gives, apart from the reach of the
convolutions. The reference's encoder flows carry no gradient: they share the weights of the picture's own flow.
Activations are pixels / PIXEL_UNIT.
"""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remac.config import PIXEL_UNIT
from remac.decoder import Residual, conv
from remac.marsqe_modules import FUSINGS, Modulation, NonLocal, Norm, QualityEnhancement, SupervisedAttention, extract_texture, from_cells, to_cells
from remac_runtime.enhance.matching import CELL
from remac_runtime.format import PIXEL_OFFSET

LEVELS = (2, 4, 8)            # pixels per feature of the levels; L = 3
FEATURES = tuple(f"{kind}{level}" for kind in "cr" for level in range(1, len(LEVELS) + 1))     # encoded references: compressed, raw
DCT_SLACK = 1.0               # what rounding to RGB adds to half a quantisation step, in DCT units
JPEG_OFFSET = 128.0           # what JPEG takes off its samples before the DCT
LUMA = (0.299, 0.587, 0.114)
FREE = 1e5                    # a half width that constrains nothing
INDEX_FILE = "marsqe.json"


@dataclass(frozen=True)
class MarsQEConfig:
    """Channels and residual blocks of the main network, channels and modules of the post-enhancement network; three levels each."""

    channels: int = 64
    encoder: tuple[int, int, int] = (7, 2, 1)
    decoder: tuple[int, int, int] = (3, 1, 1)
    post_channels: tuple[int, int, int] = (64, 128, 192)
    post_encoder: tuple[int, int, int] = (2, 3, 1)
    post_decoder: tuple[int, int, int] = (2, 3, 1)
    fusing: str = "tfm"           # of FUSINGS


FULL = MarsQEConfig()


@dataclass(frozen=True)
class Bank:
    """Encoded references: three levels float[R,C,S/2^i,S/2^i] of the compressed and of the raw patches."""

    compressed: tuple[Tensor, ...]
    raw: tuple[Tensor, ...]

    def taken(self, index: Tensor) -> Bank:
        """The references of the cells, int64[P]."""
        return Bank(tuple(f[index] for f in self.compressed), tuple(f[index] for f in self.raw))


@dataclass(frozen=True)
class Enhanced:
    """Pictures float[B,3,H,W], 8-bit units, not rounded: MarsQE-lite's I_enh, and I_enh+ where the post-enhancement ran."""

    lite: Tensor
    full: Tensor | None


def conditions(tables: Tensor) -> Tensor:
    """The quantisation in four numbers near 0: log2 of the mean step of the 10 lowest and of the other frequencies, luma and chroma.

    tables float[B,2,64] (luma, chroma), natural order (row * 8 + column) -> float[B,4].
    """
    row = torch.arange(64, device=tables.device) // 8
    low = (row + torch.arange(64, device=tables.device) % 8 < 4).to(tables.dtype)
    means = torch.cat([(tables * low).sum(2) / low.sum(), (tables * (1 - low)).sum(2) / (1 - low).sum()], 1)
    return torch.log2(means.clamp_min(0.125)) - 5.5


def down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.PixelUnshuffle(2), conv(4 * inputs, outputs, 1))


def up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv(inputs, 4 * outputs, 1), nn.PixelShuffle(2))


def _spread(share: Tensor, like: Tensor, side: int) -> Tensor:
    """One number for each cell, float[P], to every position: float[B,1,h,w]."""
    cells = share.reshape(-1, 1, like.shape[2] // side, like.shape[3] // side)
    return F.interpolate(cells, scale_factor=float(side), mode="nearest")


class MainNetwork(nn.Module):
    """The semantic-informed network of three levels (section IV-B)."""

    def __init__(self, config: MarsQEConfig) -> None:
        super().__init__()
        c = config.channels
        self.head = conv(12, c)
        self.phase = nn.Parameter(torch.zeros(c, 4, 4))      # where a feature lies within the 8x8 grid of the DCT
        self.encoder = nn.ModuleList(nn.Sequential(*(Residual(c) for _ in range(n))) for n in config.encoder)
        self.down = nn.ModuleList(down(c, c) for _ in LEVELS[1:])
        self.up = nn.ModuleList(up(c, c) for _ in LEVELS[1:])
        self.decoder = nn.ModuleList(nn.Sequential(*(Residual(c) for _ in range(n))) for n in config.decoder)
        self.norms = nn.ModuleList(Norm(c) for _ in LEVELS[1:])      # of what comes down: without them the lower levels ran away
        self.fusing = nn.ModuleList(FUSINGS[config.fusing](c, CELL // level) for level in LEVELS)
        self.modulation = nn.ModuleList(Modulation(c) for _ in LEVELS)
        self.sam = SupervisedAttention(c)

    def encode(self, x: Tensor, condition: Tensor, hints: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Activations float[B,3,H,W] -> features of the three levels, to which `hints` are added first, where there are any."""
        f = self.head(F.pixel_unshuffle(x, 2))
        f = f + self.phase.repeat(1, f.shape[2] // 4, f.shape[3] // 4)
        features = []
        for i, blocks in enumerate(self.encoder):
            f = self.modulation[i](self.norms[i - 1](self.down[i - 1](f)) if i else f, condition)
            f = blocks(f + hints[i] if hints else f)
            features.append(f)
        return tuple(features)

    def forward(self, x: Tensor, condition: Tensor, references: Bank | None, share: Tensor | None,
                hints: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
        """Activations, conditions, the cells' references and their share float[P], hints for `encode` -> refined features, I_enh in activations."""
        features = self.encode(x, condition, hints)
        decoded = features[-1]
        for i in reversed(range(len(LEVELS))):
            if i < len(LEVELS) - 1:
                decoded = self.up[i](decoded) + features[i]
            side = CELL // LEVELS[i]
            moved = None if references is None else self._texture(features[i], references, i)
            allowed = None if share is None else _spread(share.to(x.dtype), decoded, side)
            decoded = self.decoder[i](self.fusing[i](decoded, moved, allowed))
        refined: tuple[Tensor, Tensor] = self.sam(decoded, x)
        return refined

    @staticmethod
    def _texture(features: Tensor, references: Bank, level: int) -> Tensor:
        side = CELL // LEVELS[level]
        moved = extract_texture(to_cells(features, side), references.compressed[level].to(features.dtype), references.raw[level].to(features.dtype))
        return from_cells(moved, side, features.shape[2], features.shape[3])


class PostNetwork(nn.Module):
    """The post-enhancement network (section IV-C)."""

    def __init__(self, config: MarsQEConfig) -> None:
        super().__init__()
        widths = config.post_channels
        cells = [CELL // level for level in LEVELS]
        self.head, self.join = conv(24, widths[0]), conv(config.channels, widths[0], 1)
        self.encoder = nn.ModuleList(nn.Sequential(*(QualityEnhancement(c, s) for _ in range(n)))
                                     for c, s, n in zip(widths, cells, config.post_encoder, strict=True))
        self.decoder = nn.ModuleList(nn.Sequential(*(QualityEnhancement(c, s) for _ in range(n)))
                                     for c, s, n in zip(widths, cells, config.post_decoder, strict=True))
        self.non_local = NonLocal(widths[2], cells[2])
        self.down = nn.ModuleList(down(a, b) for a, b in pairwise(widths))
        self.up = nn.ModuleList(up(b, a) for a, b in pairwise(widths))
        self.tail = conv(widths[0], 12)
        nn.init.zeros_(self.tail.weight)

    def forward(self, x: Tensor, lite: Tensor, features: Tensor, classes: Tensor) -> Tensor:
        """Activations of the compressed picture and of I_enh, the main network's features, class map int64[B,H/8,W/8] -> what I_enh+ adds."""
        f = self.head(F.pixel_unshuffle(torch.cat([x, 4 * (lite - x)], 1), 2)) + self.join(features)
        skips = []
        for i, blocks in enumerate(self.encoder):
            f = blocks(self.down[i - 1](f) if i else f)
            skips.append(f)
        f = self.non_local(f, classes)
        for i in reversed(range(len(LEVELS))):
            f = self.decoder[i](self.up[i](f) + skips[i] if i < len(LEVELS) - 1 else f)
        return F.pixel_shuffle(self.tail(f), 2)


class MarsQE(nn.Module):
    """Both networks. MarsQE-lite is `post=False`: I_enh, without the post-enhancement (section V-B)."""

    dct: Tensor

    def __init__(self, config: MarsQEConfig = FULL) -> None:
        super().__init__()
        self.config = config
        self.main, self.post = MainNetwork(config), PostNetwork(config)
        self.register_buffer("dct", dct_filters(), persistent=False)

    def encode_references(self, patches: Tensor, tables: Tensor) -> tuple[Tensor, ...]:
        """Features of patches float[R,3,128,128], 8-bit units, with tables float[R,2,64]."""
        return self.main.encode((patches - PIXEL_OFFSET) / PIXEL_UNIT, conditions(tables))

    def forward(self, picture: Tensor, tables: Tensor, classes: Tensor, references: Bank | None = None, share: Tensor | None = None,
                post: bool = True) -> Enhanced:
        """picture float[B,3,H,W], 8-bit units, H and W multiples of 128; tables float[B,2,64]; classes int64[B,H/8,W/8]; references of the cells
        (row by row, picture by picture) and their share float[P] -> Enhanced."""
        x = (picture - PIXEL_OFFSET) / PIXEL_UNIT
        features, lite = self.main(x, conditions(tables), references, share)
        full = (lite + self.post(x, lite, features, classes)).float() * PIXEL_UNIT + PIXEL_OFFSET if post else None
        return Enhanced(lite.float() * PIXEL_UNIT + PIXEL_OFFSET, full)

    def constrained(self, enhanced: Tensor, picture: Tensor, tables: Tensor) -> Tensor:
        """`enhanced` moved to where its luma's DCT quantises to the coefficients of the JPEG `picture` (up to DCT_SLACK); steps of 0: left free.

        All float[B,3,H,W], tables float[B,2,64]. The true picture lies in this convex set, so the error cannot grow.
        """
        luma = enhanced.new_tensor(LUMA)[None, :, None, None]
        step = tables[:, 0, :, None, None]
        coded, now = (F.conv2d((p * luma).sum(1, keepdim=True) - JPEG_OFFSET, self.dct, stride=8) for p in (picture, enhanced))
        centre = torch.round(coded / step.clamp_min(1)) * step
        half = torch.where(step > 0, step / 2 + DCT_SLACK, torch.full_like(step, FREE))
        change = torch.minimum(torch.maximum(now, centre - half), centre + half) - now
        return enhanced + F.conv_transpose2d(change, self.dct, stride=8)


class EncodeReferences(nn.Module):
    """`MarsQE.encode_references` with one set of tables for all patches, as the runtime calls it."""

    def __init__(self, model: MarsQE) -> None:
        super().__init__()
        self.model = model

    def forward(self, patches: Tensor, tables: Tensor) -> tuple[Tensor, ...]:
        return self.model.encode_references(patches, tables)


class Enhance(nn.Module):
    """MarsQE, or MarsQE-lite without `post`, from a picture and the encoded dictionary to pixels, as the runtime calls it."""

    INPUTS = ("picture", "tables", "trust", "classes", *FEATURES, "index", "share")

    def __init__(self, model: MarsQE, post: bool) -> None:
        super().__init__()
        self.model, self.post = model, post

    def forward(self, picture: Tensor, tables: Tensor, trust: Tensor, classes: Tensor, *further: Tensor) -> Tensor:
        *features, index, share = further
        bank = Bank(tuple(features[:len(LEVELS)]), tuple(features[len(LEVELS):])).taken(index)
        out = self.model(picture, tables, classes, bank, share, post=self.post)
        enhanced = out.full if self.post else out.lite
        return enhanced + (self.model.constrained(enhanced, picture, tables) - enhanced) * trust


def dct_filters() -> Tensor:
    """The orthonormal 8x8 DCT-II as float[64,1,8,8] filters, in natural order of the frequencies (vertical * 8 + horizontal)."""
    n = torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * n[None] + 1) * n[:, None] * math.pi / 16) * 0.5
    basis[0] /= math.sqrt(2)
    return torch.einsum("uy,vx->uvyx", basis, basis).reshape(64, 1, 8, 8).float()


def loss_of(enhanced: Enhanced, raw: Tensor, weight: float = 1.0) -> Tensor:
    """Equation (7) for every picture, float[B], with means instead of sums; `weight` is lambda."""
    lite = (enhanced.lite - raw).square().mean((1, 2, 3))
    return lite if enhanced.full is None else lite + weight * (enhanced.full - raw).square().mean((1, 2, 3))


def load_marsqe(folder: Path) -> MarsQE:
    """The shipped model, float32, evaluation mode."""
    from remac.packing import unpacked
    from remac.tensors import load_tensors
    entry = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))["model"]
    model = MarsQE()
    model.load_state_dict(unpacked(load_tensors(folder / entry["file"])[0]))
    return model.eval()
