"""REMAC: reference-based Martian asymmetrical image compression.

      pixels --+--> space-to-depth 8 -> 1x1 -> 3x3 -> 3x3/2 -> 3x3 --> f (1/16) --+--> 2x2/2 -> 2x2/2 --> z (1/64) --> static tables
               |                                                      |          |                     |
               +--> space-to-depth 16 ------ linear path -----------> + -> y     |                    h_s
                                                                      |          |                     |
      y in four phases of each 2x2 block: (0,0) (1,1) (0,1) (1,0)     |          |                     v
      phase p: [h, reference features, four decoded neighbours] -> 1x1 -> mu, scale -> quantised residual -> y_hat -> next phase
                                                                                                          |
                                                                            ground: RefDecoder(y_hat) <---+

Bands of rows are folded into the batch before h_s, so that the entropy path of one band never sees another.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remac.config import PIXEL_UNIT, RATE, CodecConfig, RateConfig
from remac.decoder import RefDecoder
from remac.entropy import LatentBits
from remac.layers import IntegerConv, depth_to_space, round_through, space_to_depth
from remac.quantise import FloatQuantiser, IntegerQuantiser
from remac.refined import RefinedDecoder, decoder_of
from remac_runtime.format import LATENT_OFFSET, NEIGHBOURS, PHASES, PIXEL_OFFSET

DECODER = "decoder."                  # of a codec's tensors, those of its ground decoder
NORM_FLOOR = 0.4                      # spread below which latents are not magnified: noise of coarse steps would swamp them


@dataclass(frozen=True)
class Coded:
    """What a forward pass yields: the decoded picture float[B,3,H,W] in 8-bit units, bits of y and z float[B]."""

    x_hat: Tensor
    bits_y: Tensor
    bits_z: Tensor


@dataclass(frozen=True)
class Analysed:
    """Output of g_a and h_a: float mode in latent units; integer mode holds the int32 head and the centred uint8 z."""

    shallow: Tensor
    deep: Tensor
    y: Tensor
    z: Tensor


def neighbour(t: Tensor, down: int, right: int) -> Tensor:
    """The value `down` rows below and `right` columns to the right of each position, zero outside; float[B,C,h,w] -> the same."""
    if not down and not right:
        return t
    h, w = t.shape[-2:]
    padded = F.pad(t, (max(-right, 0), max(right, 0), max(-down, 0), max(down, 0)))
    top, left = max(down, 0), max(right, 0)
    return padded[:, :, top:top + h, left:left + w]


def context_taps(phase: int, decoded: list[Tensor]) -> list[Tensor]:
    """The nearest decoded neighbours of each latent of a phase, from the planes of the earlier phases: none for phase 0, then four."""
    return [neighbour(decoded[plane], down, right) for plane, down, right in NEIGHBOURS[phase]]


class Analysis(nn.Module):
    """g_a and h_a: pixels -> y, z."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.stem = IntegerConv(192, config.stem)
        self.body = IntegerConv(config.stem, config.body, 3)
        self.reduce = IntegerConv(config.body, config.deep, 3, 2)
        self.deep = IntegerConv(config.deep, config.deep, 3)
        self.head = IntegerConv(config.deep + 768, config.latents, relu=False)
        self.hyper_in = IntegerConv(4 * config.deep, config.hyper_hidden)
        self.hyper_out = IntegerConv(4 * config.hyper_hidden, config.hyper, relu=False)
        with torch.no_grad():   # z starts several steps wide: narrower, its noise hides it and training never finds it useful
            self.hyper_out.weight.mul_(6.0)

    def forward(self, x: Tensor) -> Analysed:
        """Pixels in 8-bit units, float[B,3,H,W], H and W multiples of 64."""
        pixels = x - PIXEL_OFFSET
        if not self.stem.integer:
            pixels = pixels / PIXEL_UNIT
        shallow = self.body(self.stem(space_to_depth(pixels, 8)))
        deep = self.deep(self.reduce(shallow))
        z = self.hyper_out(space_to_depth(self.hyper_in(space_to_depth(deep, 2)), 2))
        with torch.autocast(x.device.type, enabled=False):
            y = self.head(torch.cat([deep.float(), space_to_depth(pixels, 16)], 1))
        return Analysed(shallow, deep, y, z.float())


class EntropyParameters(nn.Module):
    """h_s and the four phases of the entropy module."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.side_in = IntegerConv(config.hyper, config.side_hidden)
        self.side_mid = IntegerConv(config.side_hidden, config.side_hidden, 3)
        self.side_out = IntegerConv(config.side_hidden, config.side, 3)
        self.reference = IntegerConv(4 * config.latents, config.reference)
        wide = config.side + config.reference
        self.hidden = nn.ModuleList(IntegerConv(wide + (4 * config.context if p else 0), config.entropy) for p in range(len(PHASES)))
        self.mean = nn.ModuleList(IntegerConv(config.entropy, config.latents, relu=False) for _ in PHASES)
        self.scale = nn.ModuleList(IntegerConv(config.entropy, config.latents, relu=False) for _ in PHASES)
        with torch.no_grad():
            for hidden, mean, scale in map(self.layers_of, range(len(PHASES))):
                hidden.weight[:, config.side:wide].zero_()
                mean.weight.mul_(0.1)
                scale.weight.mul_(0.1)

    def layers_of(self, p: int) -> tuple[IntegerConv, IntegerConv, IntegerConv]:
        """(hidden, mean, scale) of a phase."""
        hidden, mean, scale = self.hidden[p], self.mean[p], self.scale[p]
        assert isinstance(hidden, IntegerConv) and isinstance(mean, IntegerConv) and isinstance(scale, IntegerConv)
        return hidden, mean, scale

    def side(self, z: Tensor) -> Tensor:
        """z float[B,Z,h,w] at 1/64 -> float[B,side,2h,2w] at 1/32."""
        return self.side_out(F.interpolate(self.side_mid(self.side_in(z)), scale_factor=2, mode="nearest"))

    def fetch(self, z_hat: Tensor, reference: References | None, side: Tensor) -> Tensor:
        """Features of the best-matching place of the reference for each hyper-latent (FORMAT 5.4), float[B,R,2h,2w]; zeros without one."""
        b, _, h, w = z_hat.shape
        channels = self.reference.bias.shape[0]
        if reference is None:
            return side.new_zeros(b, channels, 2 * h, 2 * w)
        features = (self.reference(reference.semantic) * reference.share[:, None, None, None]).to(side.dtype)
        places = reference.semantic_z.flatten(2)
        distance = (z_hat.flatten(2)[:, :, :, None] - places[:, :, None, :]).abs().sum(1)
        rank = torch.arange(places.shape[2], device=z_hat.device)         # the first of equals
        best = (distance * places.shape[2] + rank).argmin(2)              # [B, h*w]
        blocks = space_to_depth(features, 2).flatten(2)                   # [B, 4R, 16]
        fetched = torch.gather(blocks, 2, best[:, None, :].expand(-1, blocks.shape[1], -1))
        return depth_to_space(fetched.reshape(b, -1, h, w), 2)

    def phase(self, p: int, side: Tensor, context: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(mu, log scale) of one phase, float32[B,M,h,w] at 1/32."""
        hidden, mean, scale = self.layers_of(p)
        features = hidden(torch.cat([side, *(t.to(side.dtype) for t in context)], 1))
        with torch.autocast(side.device.type, enabled=False):
            return mean(features.float()), scale(features.float())


@dataclass(frozen=True)
class References:
    """The references of each picture of a batch. In float mode latents are normalised, in integer mode centred int8 planes.

    semantic: the entropy module's, float[B,4M,8,8] (planes in phase order) with hyper-latents semantic_z float[B,Z,4,4];
    texture: the decoder's, latents float[B,M,16,16] in latent units; share: 1 or 0 for pictures coded without, float[B].
    """

    semantic: Tensor
    semantic_z: Tensor
    texture: Tensor
    share: Tensor

    def repeated(self, bands: int) -> References:
        return References(*(t.repeat_interleave(bands, 0) for t in (self.semantic, self.semantic_z, self.texture, self.share)))


@dataclass(frozen=True)
class Latents:
    """What the entropy path takes, bands folded into the batch."""

    y: Tensor
    z_hat: Tensor
    log_gain: Tensor
    reference: References | None


class Codec(nn.Module):
    """The whole codec. `forward` is the training path; the bitstream is the business of remac_runtime."""

    latent_norm: Tensor
    context_shift: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.analysis = Analysis(config)
        self.entropy = EntropyParameters(config)
        self.decoder = decoder_of(config.decoder, config.latents)
        self.bits = LatentBits(config.hyper)
        self.integer = False
        self.log_gain = nn.Parameter(torch.zeros(RATE.gain_knots, config.latents))
        self.register_buffer("latent_norm", torch.ones(config.latents))
        self.register_buffer("context_shift", torch.zeros(config.latents))
        lambdas = torch.logspace(math.log2(RATE.lambda_low), math.log2(RATE.lambda_high), RATE.gain_knots, base=2)
        with torch.no_grad():   # at high rates the best step is sqrt(26 / lambda) 8-bit units, DESIGN: rate-distortion with bits + lambda * MSE
            self.log_gain.add_(torch.log(PIXEL_UNIT * torch.sqrt(lambdas / 26.0))[:, None])

    @property
    def base(self) -> RefDecoder:
        """The ground decoder, or the one that it refines."""
        return self.decoder.base if isinstance(self.decoder, RefinedDecoder) else self.decoder

    def start_from_pca(self, blocks: Tensor) -> None:
        """Set the linear path and its mirror to the PCA of training blocks, float[N,768] of (pixel - offset) / unit in space-to-depth order."""
        mean = blocks.mean(0)
        values, basis = torch.linalg.eigh((blocks - mean).T @ (blocks - mean) / len(blocks))
        m = self.config.latents
        basis, spread = basis[:, -m:].flip(1), values[-m:].flip(0).clamp_min(1e-8).sqrt()
        with torch.no_grad():
            head, deep = self.analysis.head, self.config.deep
            head.weight[:, :deep].mul_(0.1 * spread[:, None, None, None])
            head.weight[:, deep:] = basis.T[:, :, None, None]
            head.bias.copy_(-(basis.T @ mean))
            self.base.linear.weight.copy_(basis[:, :, None, None])
            self.base.linear.bias = nn.Parameter(mean.clone())
            self.latent_norm.copy_(torch.rsqrt(spread.square() + NORM_FLOOR ** 2))
            for _, mu, scale in map(self.entropy.layers_of, range(len(PHASES))):
                mu.weight.mul_(spread[:, None, None, None])
                scale.bias.copy_(torch.log(0.5 * spread))

    def regrid(self, old: RateConfig) -> None:
        """Move what is learned per gain knot from the lambdas of `old` (as many knots) to those of RATE, by interpolation over log lambda."""
        new_position = torch.linspace(math.log(RATE.lambda_low), math.log(RATE.lambda_high), RATE.gain_knots, dtype=torch.float64)
        step = (math.log(old.lambda_high) - math.log(old.lambda_low)) / (RATE.gain_knots - 1)
        position = (new_position - math.log(old.lambda_low)) / step
        below = position.floor().clamp(0, RATE.gain_knots - 2).long()
        share = (position - below).float()[:, None].to(self.log_gain.device)      # below 0 and above 1 at the ends: extrapolation

        def moved(table: Tensor, share: Tensor) -> Tensor:
            return table[below] * (1 - share) + table[below + 1] * share

        with torch.no_grad():
            self.log_gain.copy_(moved(self.log_gain, share))
            weight = self.base.quality.weight
            weight.copy_(moved(weight.T, share.clamp(0, 1)).T)

    def knots(self, quality: Tensor) -> Tensor:
        """Interpolation weights of the gain knots, float[B] of qualities -> float[B,knots]."""
        position = quality.float() / (RATE.qualities - 1) * (RATE.gain_knots - 1)
        index = torch.arange(RATE.gain_knots, device=quality.device)
        return (1 - (position[:, None] - index).abs()).clamp_min(0)

    def gains(self, quality: Tensor) -> Tensor:
        """log of the gain (steps per latent unit) of each latent channel, float[B,M]."""
        return self.knots(quality) @ self.log_gain

    def forward(self, x: Tensor, quality: Tensor, noisy: bool, bands: int = 1,
                choose: Callable[[Analysed], References] | None = None) -> Coded:
        """Pixels float[B,3,H,W] in 8-bit units and qualities [B] -> Coded.

        `bands` splits the rows; `noisy` adds noise instead of rounding; `choose` picks references.
        In integer mode (after `remac.integer.prepare`) the rover side computes the normative integers and only the decoder may run in bfloat16.
        """
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and not self.integer):
            analysed = self.analysis(x)
            reference = choose(analysed) if choose else None
            z = analysed.z.clamp(-LATENT_OFFSET, LATENT_OFFSET - 1)
            bits_z = self.bits.of_z(z + torch.rand_like(z) - 0.5 if self.training else torch.round(z))
            latents = Latents(fold(analysed.y, bands), fold(round_through(z), bands),
                              self.gains(quality).repeat_interleave(bands, 0)[:, :, None, None],
                              reference.repeated(bands) if reference else None)
            y_hat, bits_y, _ = self.code_latents(latents, noisy)
        texture = (reference.texture, reference.share) if reference else ()
        x_hat = self.decoder(unfold(y_hat, bands), self.knots(quality), self.latent_norm, *texture)
        return Coded(x_hat, bits_y.reshape(-1, bands).sum(1), bits_z)

    def code_latents(self, latents: Latents, noisy: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Quantise y phase by phase -> (y_hat in latent units float[B,M,h,w], bits of y [B], the context planes of the phases float[B,M,h/2,w/2])."""
        quantise = (IntegerQuantiser if self.integer else FloatQuantiser)(self, latents.log_gain)
        side = self.entropy.side(latents.z_hat)
        side = torch.cat([side, self.entropy.fetch(latents.z_hat, latents.reference, side)], 1)
        decoded: list[Tensor] = []
        values: list[Tensor] = []
        planes: list[Tensor] = []
        bits = latents.y.new_zeros(len(latents.y))
        for p, (dy, dx) in enumerate(PHASES):
            mu, scale = self.entropy.phase(p, side, context_taps(p, decoded))
            residual, sigma, y_hat, plane = quantise(latents.y[:, :, dy::2, dx::2], mu, scale, noisy)
            bits = bits + self.bits.of_y(residual, sigma)
            values.append(y_hat)
            planes.append(plane)
            decoded.append(plane[:, :self.config.context])
        return merge_phases(values), bits, planes


def merge_phases(planes: list[Tensor]) -> Tensor:
    """Four planes float[B,C,h,w] at 1/32 -> float[B,C,2h,2w] at 1/16."""
    order = [planes[PHASES.index(position)] for position in ((0, 0), (0, 1), (1, 0), (1, 1))]
    b, c, h, w = planes[0].shape
    return torch.stack(order, 2).reshape(b, c, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c, 2 * h, 2 * w)


def fold(t: Tensor, bands: int) -> Tensor:
    """float[B,C,h,w] -> float[B*bands,C,h/bands,w]."""
    b, c, h, w = t.shape
    return t.reshape(b, c, bands, h // bands, w).transpose(1, 2).reshape(b * bands, c, h // bands, w)


def unfold(t: Tensor, bands: int) -> Tensor:
    """The inverse of `fold`."""
    b, c, h, w = t.shape
    return t.reshape(b // bands, bands, c, h, w).transpose(1, 2).reshape(b // bands, c, bands * h, w)
