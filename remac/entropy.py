"""Likelihoods for training, from compressai: a factorised prior for z, a Gaussian conditional for y. Calibration freezes both to tables."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from remac.compressai_import import EntropyBottleneck, GaussianConditional

LIKELIHOOD_FLOOR = 1e-9


class LatentBits(nn.Module):
    """Bits of integer (or noisy) symbols under the two priors, float32 throughout."""

    def __init__(self, hyper: int) -> None:
        super().__init__()
        self.factorised = EntropyBottleneck(hyper)
        self.factorised.quantiles.requires_grad_(False)      # medians are not used: z is coded as the symbol that it is
        self.conditional = GaussianConditional(None, scale_bound=0.1)

    def of_z(self, z: Tensor) -> Tensor:
        """float[B,C,h,w] -> float[B]."""
        b, c, _, _ = z.shape
        flat = z.float().permute(1, 0, 2, 3).reshape(c, 1, -1)
        likelihood, _, _ = self.factorised._likelihood(flat)
        return -torch.log2(likelihood.clamp_min(LIKELIHOOD_FLOOR)).reshape(c, b, -1).sum((0, 2))

    def of_y(self, residual: Tensor, scale: Tensor) -> Tensor:
        """Residual in quantisation steps and its scale, float[B,...] -> float[B]."""
        likelihood = self.conditional._likelihood(residual, scale)
        return -torch.log2(likelihood.clamp_min(LIKELIHOOD_FLOOR)).flatten(1).sum(1)
