"""What the paper's Table III measures, of uint8[H,W,3] pictures: PSNR, PSNR-B, SSIM, MS-SSIM."""
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics import PEAK, psnr_db

BLOCK = 8
NAMES = ("psnr", "psnr_b", "ssim", "ms_ssim")


def blocking_effect(plane: NDArray[np.float64]) -> float:
    """BEF of Yim and Bovik [49], float[H,W]: how much larger squared steps are across the borders of 8x8 blocks than elsewhere."""
    h, w = plane.shape
    across = np.square(np.diff(plane, axis=1)), np.square(np.diff(plane, axis=0))
    border = [(np.arange(n - 1) + 1) % BLOCK == 0 for n in (w, h)]
    at_border = across[0][:, border[0]].sum() + across[1][border[1]].sum()
    elsewhere = across[0][:, ~border[0]].sum() + across[1][~border[1]].sum()
    count = h * border[0].sum() + w * border[1].sum()
    others = h * (~border[0]).sum() + w * (~border[1]).sum()
    excess = at_border / count - elsewhere / others
    return float(math.log2(BLOCK) / math.log2(min(h, w)) * excess) if excess > 0 else 0.0


def psnr_b_db(raw: NDArray[np.uint8], picture: NDArray[np.uint8]) -> float:
    """PSNR-B in dB: the squared error and the blocking effect of the picture, both averaged over the three planes."""
    error = float(np.square(raw.astype(np.float64) - picture).mean())
    effect = sum(blocking_effect(picture[..., i].astype(np.float64)) for i in range(3)) / 3
    return 10 * math.log10(PEAK * PEAK / max(error + effect, 1e-10))


def measures(raw: NDArray[np.uint8], picture: NDArray[np.uint8]) -> dict[str, float]:
    """All of NAMES; SSIM and MS-SSIM by pytorch-msssim on RGB."""
    import torch
    from pytorch_msssim import ms_ssim, ssim

    pair = [torch.from_numpy(x.astype(np.float32)).permute(2, 0, 1)[None] for x in (picture, raw)]
    return {"psnr": psnr_db(raw, picture), "psnr_b": psnr_b_db(raw, picture), "ssim": float(ssim(*pair, data_range=PEAK)),
            "ms_ssim": float(ms_ssim(*pair, data_range=PEAK))}
