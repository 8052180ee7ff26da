"""Every hyper-parameter of the models and of their training, as frozen dataclasses with presets."""
from __future__ import annotations

from dataclasses import dataclass, replace

from remac_runtime.format import QUALITIES

CODED_FROM = 1          # symbols whose scale index is below it are zero and never coded
PIXEL_UNIT = 128.0      # float mode sees (pixel - PIXEL_OFFSET) / PIXEL_UNIT


@dataclass(frozen=True)
class DecoderConfig:
    """Widths and depths of a ground decoder g_s. What it decodes records its name and version."""

    name: str
    widths: tuple[int, int, int, int]     # channels at 1/32, 1/16, 1/8, 1/4
    blocks: tuple[int, int, int, int]     # residual blocks at each of them
    half: int = 0                         # channels of a last stage at 1/2; 0: none, and no texture below 1/8
    half_blocks: int = 0
    version: int = 1
    trunk_of: str = ""                    # decoder whose RefDecoder.TRUNK it has, weights and all
    refines: str = ""                     # decoder behind which it puts a Refinement (remac/refined.py), being that decoder otherwise


MODERATE = DecoderConfig("moderate", (256, 192, 128, 64), (2, 2, 2, 1))
SMALL = DecoderConfig("small", (192, 128, 96, 48), (2, 2, 2, 1))
DEEP = DecoderConfig("deep", (256, 192, 128, 64), (2, 2, 5, 12), half=32, half_blocks=4, version=2, trunk_of="moderate")
REFINED = replace(DEEP, name="refined", version=3, trunk_of="", refines="deep")
DECODERS = {config.name: config for config in (MODERATE, SMALL, DEEP, REFINED)}


@dataclass(frozen=True)
class CodecConfig:
    """Widths of the REMAC codec. Channel counts are multiples of 16, which is what 8-bit convolution kernels like."""

    name: str
    stem: int            # g_a, 1x1 on the 8x8 space-to-depth of the pixels
    body: int            # g_a, 3x3 at 1/8
    deep: int            # g_a, two 3x3 at 1/16
    latents: int         # M, channels of y
    context: int         # C, the first channels of y that the entropy parameters see of a decoded neighbour
    hyper_hidden: int    # h_a, after its first 2x2 stride-2 step
    hyper: int           # channels of z
    side_hidden: int     # h_s, at 1/64
    side: int            # h_s, output at 1/32
    reference: int       # channels of the features fetched from the reference latents
    entropy: int         # hidden channels of each phase of the entropy parameters
    decoder: DecoderConfig = MODERATE


ROVER_M = CodecConfig("rover-m", stem=128, body=128, deep=192, latents=304, context=256, hyper_hidden=128, hyper=64,
                      side_hidden=128, side=192, reference=64, entropy=256)
ROVER_S = CodecConfig("rover-s", stem=64, body=64, deep=64, latents=128, context=96, hyper_hidden=64, hyper=32,
                      side_hidden=64, side=64, reference=32, entropy=96, decoder=SMALL)
PROFILES = {config.name: config for config in (ROVER_M, ROVER_S)}


@dataclass(frozen=True)
class RateConfig:
    """The 64 qualities: lambda of `rate + lambda * MSE` (bits per pixel, 8-bit units) grows geometrically from quality 0 to 63."""

    lambda_low: float = 0.0002
    lambda_high: float = 1.6
    qualities: int = QUALITIES
    gain_knots: int = 8            # learned log-gains per channel, interpolated linearly between
    balance: float = 0.45          # losses are divided by lambda ** balance, so that no quality dominates


RATE = RateConfig()


@dataclass(frozen=True)
class TrainConfig:
    """One stage of training. Steps, not hours, set the schedules, so that a resumed run takes the same path."""

    stage: str = "float"           # float: everything in float; quantised: the rover side in integers; decoder: g_s alone, rover side frozen
    steps: int = 24_000
    batch: int = 3                 # patches per process and step
    patch: int = 256               # pixels, a multiple of 128
    learning_rate: float = 4e-4
    final_rate: float = 1e-5
    warmup_steps: int = 200
    hold: float = 0.25             # share of the steps before the cosine decay starts
    muon: float = 0.0              # > 0: inner convolutions learn by Muon, at this multiple of the learning rate; the rest by Adam
    noisy: float = 0.6             # share of the steps with additive noise in the distortion path, then straight-through rounding
    clip: float = 1.0              # gradient norm
    second_moment: float = 0.98    # Adam's beta2: 0.999 lets one odd patch throw the decoder off, seen twice at step 600 and 1500
    spike: float = 60.0            # a step whose gradient norm is above it is skipped once warm ...
    skips: int = 3                 # ... but not more than so many in a row, or a bad spot would never be left
    unreferenced: float = 0.3      # share of the patches coded without references (stages after float)
    relative: float = 0.0          # > 0: the loss is the mean log of each patch's cost + this: shares of its own cost count, as in a BD-rate
    focus: float = 0.0             # share of the patches whose quality is one of those missions use, FOCUS; the others': any
    seed: int = 1


TRAINED_BAND_ROWS = 128            # of the patches that are cut into bands, and in the estimates of a run
FOCUS = (6, 46)                    # qualities of about 26 to 40 dB on the pictures of docs/data.md; flight practice is 36 dB
STAGES = {
    "float": TrainConfig(),
    "quantised": TrainConfig("quantised", steps=11_000, learning_rate=3e-4, hold=0.3, noisy=0.0, focus=0.7, seed=2),
    "decoder": TrainConfig("decoder", steps=6000, learning_rate=2e-4, hold=0.2, noisy=0.0, focus=0.7, seed=3),
}
