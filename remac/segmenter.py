"""Terrain segmentation into sand, soil, rock and sky: a small transformer after SegFormer (reference [31] of the MarsQE paper).

It sees the picture at half resolution: a convolutional stem to 1/8 and 1/32 of the picture's sides, transformer blocks at 1/32 whose
feed-forward part has a depthwise convolution (that is where position comes from, so any size works), and a head at 1/8.
"""
from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remac.checkpoints import read_checkpoint
from remac.decoder import conv
from remac_runtime.enhance.enhancer import WINDOW
from remac_runtime.enhance.matching import CLASS_NAMES
from remac_runtime.format import PIXEL_OFFSET

CLASSES = len(CLASS_NAMES)
IGNORED = 255
MULTIPLE = 64                 # the sides of what goes in
WIDTH, HEADS, DEPTH, STEM = 128, 4, 4, 64
SEGMENTER_FILE = "segmenter.safetensors.xz"


class MixFeedForward(nn.Module):
    """Feed-forward part with a depthwise 3x3 convolution, float[B,C,h,w] -> float[B,C,h,w]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen, self.narrow = conv(width, 3 * width, 1), conv(3 * width, width, 1)
        self.local = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.narrow(F.gelu(self.local(self.widen(x))))
        return y


class Block(nn.Module):
    """Self-attention over all positions, then the feed-forward part; both residual, after a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project, self.feed = nn.Linear(width, 3 * width), nn.Linear(width, width), MixFeedForward(width)
        nn.init.zeros_(self.project.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        query, key, value = self.qkv(tokens).reshape(b, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(b, h * w, c)
        x = x + self.project(mixed).transpose(1, 2).reshape(b, c, h, w)
        fed: Tensor = self.feed(self.feed_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return x + fed


class Segmenter(nn.Module):
    """float[B,3,H,W] of 8-bit units, H and W multiples of 64 -> logits float[B,4,H/8,W/8]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(4), conv(48, STEM), nn.ReLU(), conv(STEM, STEM), nn.ReLU())
        self.embed = nn.Sequential(conv(STEM, WIDTH, 3, 2), nn.ReLU(), conv(WIDTH, WIDTH, 3, 2))
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS) for _ in range(DEPTH)))
        self.deep, self.shallow, self.classify = conv(WIDTH, STEM, 1), conv(STEM, STEM, 1), conv(STEM, CLASSES, 1)

    def forward(self, picture: Tensor) -> Tensor:
        shallow = self.stem(F.avg_pool2d((picture - PIXEL_OFFSET) / 64.0, 2))
        deep = self.deep(self.blocks(self.embed(shallow)))
        joined = F.interpolate(deep, scale_factor=4.0, mode="bilinear", align_corners=False) + self.shallow(shallow)
        logits: Tensor = self.classify(F.relu(joined))
        return logits


@torch.no_grad()
def class_map(model: Segmenter, picture: Tensor) -> Tensor:
    """Classes int64[ceil(H/8),ceil(W/8)] of one picture float[3,H,W], window by window."""
    h, w = picture.shape[1:]
    padded = F.pad(picture[None], (0, -w % MULTIPLE, 0, -h % MULTIPLE), "replicate")
    rows = []
    for top in range(0, padded.shape[2], WINDOW):
        windows = [model(padded[:, :, top:top + WINDOW, left:left + WINDOW]).argmax(1)[0] for left in range(0, padded.shape[3], WINDOW)]
        rows.append(torch.cat(windows, 1))
    return torch.cat(rows, 0)[:-(-h // 8), :-(-w // 8)]


def cell_classes(classes: Tensor, side: int = 16) -> Tensor:
    """The most frequent class of every cell, the smallest on a tie: int64[B,h,w] -> int64[B,h/side,w/side]."""
    counts = torch.stack([F.avg_pool2d((classes == k).float(), side) for k in range(CLASSES)], 1)
    return counts.argmax(1)


def load_segmenter(folder: Path) -> Segmenter:
    """The shipped segmenter, float32, evaluation mode. A training bundle has it as segmenter.pt, readable without safetensors."""
    path = folder / SEGMENTER_FILE
    if path.exists():
        from remac.packing import unpacked
        from remac.tensors import load_tensors
        tensors = unpacked(load_tensors(path)[0])
    else:
        tensors = read_checkpoint(path.with_suffix(".pt"), needed=())
    model = Segmenter()
    model.load_state_dict(tensors)
    return model.eval()
