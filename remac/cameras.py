"""Pictures as cameras never trained on would show them: other colours and optics, what a camera's own processing leaves, sensors with colour filters.

Everything random is drawn from the generator that is given. Pictures are float[3+n,H,W]: colours in 8-bit units, and maps that only move with them
(the classes of the terrain).
"""
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from remac_runtime import mosaics
from remac_runtime.choices import PATTERNS

OTHER_CAMERA_SEED = 23
BINNED_SHARE = 0.5             # of the pictures of sensors; the others are mosaics as the codec gets to see them
NOISY_SHARE, NOISE = 0.5, (0.3, 5.0)        # of the same pictures, with a standard deviation from this range
_MEANS = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])[None, None] / 4      # of red's and of blue's nearest samples


def _colours() -> Tensor:
    """Which colours each pattern has a sample of, bool[patterns,3,2,2]."""
    result = torch.zeros(len(PATTERNS), 3, 2, 2, dtype=torch.bool)
    for pattern in range(1, len(PATTERNS)):
        row, column = divmod(pattern - 1, 2)
        result[pattern, 0, row, column] = result[pattern, 2, 1 - row, 1 - column] = True
        result[pattern, 1, row, 1 - column] = result[pattern, 1, 1 - row, column] = True
    return result


_COLOURS = _colours()


def augmented(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """What other cameras do to a picture: softness, grey or another white balance, gamma, exposure, offset."""
    x, maps = picture[:3] / 255.0, picture[3:]
    size = x.shape[1:]
    if rng.random() < 0.4:
        factor = rng.uniform(1.3, 2.4)
        h, w = (int(side / factor) // 2 * 2 for side in size)
        x = F.interpolate(x[None, :, :h, :w], size=size, mode="bicubic", align_corners=False)[0]
        maps = F.interpolate(maps[None, :, :h, :w], size=size, mode="nearest")[0] if len(maps) else maps
    balance = rng.uniform(0.65, 1.35, (3, 1, 1))
    x = x.mean(0, keepdim=True).expand(3, -1, -1) if rng.random() < 0.3 else x * torch.from_numpy(balance).float()
    x = x.clamp(0, 1) ** rng.uniform(0.6, 1.6)
    x = x * rng.uniform(0.5, 1.1) + rng.uniform(-0.03, 0.12)
    return torch.cat([(x.clamp(0, 1) * 255).round(), maps])


def processed(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """What a camera's own processing leaves: colours of half the resolution (Bayer filters, 4:2:0), sharpening, noise."""
    x = picture[:3]
    if rng.random() < 0.35:
        luma = x.mean(0, keepdim=True)
        halved = F.interpolate((x - luma)[None], scale_factor=0.5, mode="area")
        x = luma + F.interpolate(halved, size=x.shape[1:], mode="bilinear")[0]
    if rng.random() < 0.2:
        x = x + float(rng.uniform(0.2, 0.8)) * (x - F.avg_pool2d(x[None], 3, 1, 1, count_include_pad=False)[0])
    if rng.random() < 0.25:
        x = x + float(rng.uniform(0.3, 2.5)) * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    return torch.cat([x.clamp(0, 255).round(), picture[3:]])


def sensed(picture: Tensor, rng: np.random.Generator) -> tuple[Tensor, int]:
    """What a sensor with a Bayer mosaic makes of a picture float[3+n,2h,2w] (sides cut to even ones): float[3+n,h,w], and the pattern, 0 for none.

    Binned, one pixel of each two by two, with the red and the blue one a pixel of the sensor apart; or the mosaic of the picture at half size, as
    `mosaics.sharpened` interpolates it before the analysis transform.
    """
    rows, columns = (side // 2 * 2 for side in picture.shape[1:])
    x, maps = picture[:3, :rows, :columns], picture[3:, :rows:2, :columns:2]
    pattern = int(rng.integers(1, len(PATTERNS)))
    binned, noisy, deviation = rng.random() < BINNED_SHARE, rng.random() < NOISY_SHARE, float(rng.uniform(*NOISE))
    if binned:
        row, column = divmod(pattern - 1, 2)
        green = (x[1, row::2, 1 - column::2] + x[1, 1 - row::2, column::2]) / 2
        x = torch.stack([x[0, row::2, column::2], green, x[2, 1 - row::2, 1 - column::2]])
    else:
        x = F.avg_pool2d(x, 2)
    if noisy:
        x = x + deviation * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    x = x.clamp(0, 255).round()
    if not binned:
        x = to_tensor(mosaics.sharpened(_to_picture(x), pattern))
    return torch.cat([x, maps]), 0 if binned else pattern


def shown(x: Tensor, patterns: Tensor) -> Tensor:
    """What is shown of decoded pictures float[B,3,H,W] of even sides, by their patterns int[B]: `mosaics.restored`, not rounded, without
    filters, which are found for what has been trained."""
    if not patterns.any():
        return x
    colours = _COLOURS.to(x.device)[patterns].repeat(1, 1, x.shape[2] // 2, x.shape[3] // 2)
    around = F.pad(torch.where(colours, x, 0), (1, 1, 1, 1), "reflect")
    red, blue = (F.conv2d(around[:, n:n + 1], _MEANS.to(x)) for n in (0, 2))
    green = around[:, 1:2]
    left, right, above, below = green[..., 1:-1, :-2], green[..., 1:-1, 2:], green[..., :-2, 1:-1], green[..., 2:, 1:-1]
    lean = ((above - below).abs() - (left - right).abs()).clamp(-mosaics.LEAN, mosaics.LEAN) / (2 * mosaics.LEAN)
    guess = (0.5 + lean) * (left + right) / 2 + (0.5 - lean) * (above + below) / 2
    whole = torch.cat([red, torch.where(colours[:, 1:2], x[:, 1:2], guess), blue], 1)
    return torch.where(patterns[:, None, None, None] > 0, whole, x)


def to_tensor(picture: NDArray[np.uint8]) -> Tensor:
    """uint8[H,W,3+n] -> float[3+n,H,W]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float()


def _to_picture(x: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(x.permute(1, 2, 0).numpy().astype(np.uint8))


def other_camera(picture: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """A whole picture uint8[H,W,3+n] as another camera might show it: `augmented`, a pure function of picture and number."""
    return _to_picture(augmented(to_tensor(picture), np.random.default_rng((OTHER_CAMERA_SEED, number))))

