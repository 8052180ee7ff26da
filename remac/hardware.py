"""Drawn rover hardware for training: plates, discs, cables and dark specks with hard edges and smooth shading, which pictures of terrain lack."""
from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

SUPERSAMPLING = 2
Rgb = tuple[int, int, int]
Point = tuple[float, float]


def _colour(rng: np.random.Generator, grey: bool) -> Rgb:
    """Mostly neutral paints from black to white, sometimes copper or beige."""
    level = rng.choice([rng.uniform(5, 60), rng.uniform(60, 250), rng.uniform(170, 250)])
    tint = np.zeros(3) if grey else rng.choice([rng.normal(0, 0.03, 3), np.array([0.25, -0.05, -0.3]), np.array([0.05, 0.0, -0.12])])
    r, g, b = (int(v) for v in np.clip(level * (1 + tint), 0, 255))
    return r, g, b


def _around(rng: np.random.Generator, centre: Point, radii: Point, angle: float, angles: list[float]) -> list[Point]:
    """Points of an ellipse turned by `angle`."""
    cos, sin = math.cos(angle), math.sin(angle)
    flat = [(radii[0] * math.cos(a), radii[1] * math.sin(a)) for a in angles]
    return [(centre[0] + u * cos - v * sin, centre[1] + u * sin + v * cos) for u, v in flat]


def _shape(draw: ImageDraw.ImageDraw, mask: ImageDraw.ImageDraw, side: int, rng: np.random.Generator, grey: bool) -> None:
    """One shape on the drawing and on the mask of what is covered."""
    colour, kind = _colour(rng, grey), rng.random()
    centre = (rng.uniform(0, side), rng.uniform(0, side))
    size = side * math.exp(rng.uniform(math.log(0.01), math.log(0.7)))
    angle = rng.uniform(0, math.pi)
    if kind < 0.45:     # plate: a turned rectangle, at times with a rim
        corner = rng.uniform(0.2, math.pi / 2 - 0.2)
        points = _around(rng, centre, (size, size), angle, [corner, math.pi - corner, math.pi + corner, -corner])
        rim = _colour(rng, grey) if rng.random() < 0.3 else colour
        draw.polygon(points, fill=colour, outline=rim, width=int(rng.integers(1, 8)))
        mask.polygon(points, fill=255)
    elif kind < 0.65:   # disc, screw or speck
        points = _around(rng, centre, (size / 2, size / 2 * rng.uniform(0.3, 1)), angle, [2 * math.pi * i / 24 for i in range(24)])
        draw.polygon(points, fill=colour)
        mask.polygon(points, fill=255)
    else:               # cable: a bent line, at times with a bright stripe along it
        points = [(centre[0] + rng.normal(0, side / 3), centre[1] + rng.normal(0, side / 3)) for _ in range(int(rng.integers(2, 6)))]
        width = int(rng.integers(2, 30))
        for stroke, fill in ((width, colour), (max(1, width // 4), _colour(rng, grey)))[:1 + int(rng.random() < 0.5)]:
            draw.line(points, fill=fill, width=stroke, joint="curve")
        mask.line(points, fill=255, width=width, joint="curve")


def with_hardware(x: Tensor, rng: np.random.Generator) -> Tensor:
    """float[3,H,H] of 8-bit values -> the same with shapes drawn over a part of it."""
    size = x.shape[-1]
    side = size * SUPERSAMPLING
    grey = bool(rng.random() < 0.4)
    drawing, mask = Image.new("RGB", (side, side), _colour(rng, grey)), Image.new("L", (side, side), 255 if rng.random() < 0.4 else 0)
    draws = ImageDraw.Draw(drawing), ImageDraw.Draw(mask)
    for _ in range(int(rng.integers(3, 25))):
        _shape(*draws, side, rng, grey)
    focus = (int(size / rng.uniform(1, 2.2)),) * 2
    soft = [t.resize(focus, Image.Resampling.BOX).resize((size, size), Image.Resampling.BICUBIC) for t in (drawing, mask)]
    drawn, covered = (torch.from_numpy(np.array(t)).float() for t in soft)
    knots = torch.from_numpy(rng.uniform(0.55, 1.2, (1, 1, 4, 4))).float()
    shading = F.interpolate(knots, size=(size, size), mode="bicubic", align_corners=True)[0]
    grain = torch.from_numpy(rng.normal(0, rng.uniform(0, 2.5), (1 if grey else 3, size, size))).float()
    scene = drawn.permute(2, 0, 1) * shading + grain
    under = x.mean(0, keepdim=True).expand_as(x) if grey else x
    share = covered[None] / 255
    return (share * scene + (1 - share) * under).clamp(0, 255).round()
