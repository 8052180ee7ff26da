"""Quantisation of one phase of latents against its mean and scale, in float and in the normative integers (FORMAT 5.5)."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from remac.config import CODED_FROM
from remac.layers import round_through
from remac_runtime.format import GAIN_BITS, LATENT_OFFSET, ROUNDING, SCALE_FRACTION_BITS, SCALE_LEVELS, SCALE_MIN, SCALE_STEPS_PER_OCTAVE

if TYPE_CHECKING:
    from remac.codec import Codec

CONTEXT_UNITS = 32.0          # planes: about so many int8 units of a normalised latent
CONTEXT_LIMIT = (LATENT_OFFSET - 1) / CONTEXT_UNITS
LOG_SCALE_MAX = math.log(SCALE_MIN) + (SCALE_LEVELS - 1) / SCALE_STEPS_PER_OCTAVE * math.log(2.0)
SCALE_UNITS = SCALE_STEPS_PER_OCTAVE * 2 ** SCALE_FRACTION_BITS / math.log(2.0)   # units of the scale head in a factor of e

Quantised = tuple[Tensor, Tensor, Tensor, Tensor]   # residual (steps; noisy in training), its scale, y_hat (latent units), context plane


class FloatQuantiser:
    """Float mode: mu in latent units, scale as a natural logarithm. Rounds to the nearest."""

    def __init__(self, codec: Codec, log_gain: Tensor) -> None:
        self.log_gain, self.gain = log_gain, torch.exp(log_gain)
        self.norm = codec.latent_norm[:, None, None]
        self.training = codec.training

    def __call__(self, y: Tensor, mu: Tensor, log_scale: Tensor, noisy: bool) -> Quantised:
        sigma = torch.exp((log_scale + self.log_gain).clamp(math.log(SCALE_MIN), LOG_SCALE_MAX))
        steps = (y - mu) * self.gain
        k = round_through(steps)
        residual = steps + torch.rand_like(steps) - 0.5 if self.training else k
        y_hat = mu + (residual if noisy else k) / self.gain
        return residual, sigma, y_hat, (y_hat * self.norm).clamp(-CONTEXT_LIMIT, CONTEXT_LIMIT)


class IntegerQuantiser:
    """Integer mode: y, mu and the scale are outputs of integer heads. Products of up to 51 bits, hence float64, where they are exact."""

    def __init__(self, codec: Codec, log_gain: Tensor) -> None:
        self.unit = codec.analysis.head.output_scale.double()[:, None, None]      # integer y units in a latent unit
        self.gain, self.inverse_gain, self.scale_offset = integer_gains(log_gain.double(), self.unit)
        self.shift = codec.context_shift.double()[:, None, None]
        self.rounding = torch.tensor(ROUNDING, dtype=torch.float64, device=log_gain.device) * 2.0 ** -GAIN_BITS
        self.training = codec.training

    def __call__(self, y: Tensor, mu: Tensor, scale: Tensor, noisy: bool) -> Quantised:
        mu = round_through(mu.double())
        index = scale_index(scale, self.scale_offset)
        sigma = SCALE_MIN * torch.exp2(index / SCALE_STEPS_PER_OCTAVE)
        steps = (y.double() - mu) * self.gain * 2.0 ** -GAIN_BITS
        k = torch.where(index >= CODED_FROM, round_away_through(steps, self.rounding[index.long()]), 0.0)
        y_hat = mu + k * self.inverse_gain
        plane = round_through((y_hat * torch.exp2(-self.shift)).clamp(-LATENT_OFFSET, LATENT_OFFSET - 1))
        residual = steps + torch.rand_like(steps) - 0.5 if self.training else k
        if noisy:
            y_hat = mu + residual * self.inverse_gain
        return residual.float(), sigma.float(), (y_hat / self.unit).float(), plane.float()


def integer_gains(log_gain: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(gain, inverse gain, scale offset) of FORMAT 5.5 from log-gains in steps per latent unit; float64 integers, straight through."""
    gain = torch.exp(log_gain)
    offset = SCALE_UNITS * (log_gain - math.log(SCALE_MIN))
    return round_through(gain / unit * 2.0 ** GAIN_BITS), round_through(unit / gain), round_through(offset)


def scale_index(scale: Tensor, offset: Tensor) -> Tensor:
    """FORMAT 5.5: the integer scale index as float64, with the gradient of the unrounded one."""
    exact = (scale.double() + offset) / 2 ** SCALE_FRACTION_BITS
    rounded = torch.floor((torch.round(scale.double()) + offset + 2 ** (SCALE_FRACTION_BITS - 1)) / 2 ** SCALE_FRACTION_BITS)
    return (rounded + (exact - exact.detach())).clamp(0, SCALE_LEVELS - 1)      # in this order the sum is the integer itself


def round_away_through(x: Tensor, rounding: Tensor) -> Tensor:
    """sign(x) * floor(abs(x) + rounding) (FORMAT 5.5), gradient unchanged. Rounding 0.5 is to the nearest, less widens the zone around zero."""
    return torch.sign(x.detach()) * torch.floor(x.detach().abs() + rounding) + (x - x.detach())
