"""The ground side's ref-decoder g_s: latents -> pixels. Float, not normative, replaceable after launch."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remac.config import PIXEL_UNIT, RATE, DecoderConfig
from remac.layers import depth_to_space
from remac_runtime.format import PIXEL_OFFSET


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    assert layer.bias is not None
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


class Residual(nn.Module):
    """x + conv(act(conv(x))), the second convolution starting at zero so that depth costs nothing at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv(channels, channels), conv(channels, channels)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.leaky_relu(self.first(x), 0.1))


def residuals(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(channels) for _ in range(count)))


class TextureTransfer(nn.Module):
    """Carries texture of the reference to where it fits: attention of the picture's features over the reference's, with values for several scales.

    `finer` are the channels wanted at 1/8, 1/4, ...; starts as zero, so that a decoder trained without references goes on from where it stood.
    """

    KEYS = 64

    def __init__(self, deep: int, finer: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = [deep, *(4 ** (scale + 1) * channels for scale, channels in enumerate(finer))]
        self.query, self.key = conv(deep, self.KEYS, 1), conv(deep, self.KEYS, 1)
        self.value = conv(deep, sum(self.widths), 1)
        nn.init.zeros_(self.value.weight)

    def forward(self, f: Tensor, reference: Tensor) -> list[Tensor]:
        """f float[B,deep,h,w], reference features float[B,deep,16,16] -> additions at 1/16 float[B,deep,h,w], 1/8 float[B,finer[0],2h,2w], ..."""
        b, _, h, w = f.shape
        query, key, value = (layer(x).flatten(2) for layer, x in ((self.query, f), (self.key, reference), (self.value, reference)))
        weight = torch.softmax(query.transpose(1, 2).float() @ key.float() * self.KEYS ** -0.5, 2)
        moved = (value.float() @ weight.transpose(1, 2)).reshape(b, -1, h, w)
        return [F.pixel_shuffle(part, 2 ** scale) if scale else part for scale, part in enumerate(moved.split(self.widths, 1))]


class RefDecoder(nn.Module):
    """Multi-scale g_s: a 1/32 branch for a large receptive field, then 1/16, 1/8, 1/4 (and 1/2), and a linear mirror of the encoder's linear path.

    y_hat --1/16--+--stride 2--> residuals at 1/32 --up--+-- texture --> residuals --> 1/8 + texture --> 1/4 (+ texture --> 1/2) --> pixels
            |                                                ^                                                                      ^
            |                              texture reference-+                                                                      |
            +-- 1x1: latents -> 768 pixels of each 16x16 block (starts as the PCA basis) -------------------------------------------+

    Input: y_hat float[B,M,h,w] in latent units (h, w even), knots float[B,RATE.gain_knots] (the quality's position), optionally latents of a texture
    reference float[B,M,16,16] with its share float[B] (0 switches it off). Output: float[B,3,16h,16w], 8-bit units.
    """

    TRUNK = ("entry", "quality", "down", "low", "rise", "at16", "linear")   # down to 1/16, and the linear path: what a deeper decoder takes over

    def __init__(self, config: DecoderConfig, latents: int) -> None:
        super().__init__()
        wide, deep, mid, fine = config.widths
        self.config = config
        self.entry = conv(latents, deep)
        self.quality = nn.Linear(RATE.gain_knots, deep)
        nn.init.zeros_(self.quality.weight)
        self.down = conv(deep, wide, stride=2)
        self.low = residuals(wide, config.blocks[0])
        self.rise = conv(wide, 4 * deep, 1)
        self.texture = TextureTransfer(deep, (mid, fine) if config.half else (mid,))
        self.at16 = residuals(deep, config.blocks[1])
        self.to8 = conv(deep, 4 * mid, 1)
        self.at8 = residuals(mid, config.blocks[2])
        self.to4 = conv(mid, 4 * fine, 1)
        self.at4 = residuals(fine, config.blocks[3])
        self.out = conv(fine, 48)
        if config.half:
            self.to2 = conv(fine, 4 * config.half, 1)
            self.at2 = residuals(config.half, config.half_blocks)
            self.out2 = conv(config.half, 12)
            nn.init.zeros_(self.out2.weight)
        self.linear = nn.Conv2d(latents, 768, 1)
        with torch.no_grad():
            self.rise.weight.mul_(0.3)
            self.out.weight.mul_(0.1)

    def trunk_state(self) -> dict[str, Tensor]:
        """The tensors of TRUNK by their names in the decoder."""
        return {name: value for name, value in self.state_dict().items() if name.startswith(self.TRUNK)}

    def forward(self, y_hat: Tensor, knots: Tensor, latent_norm: Tensor, texture: Tensor | None = None, share: Tensor | None = None) -> Tensor:
        return self.paint(y_hat, knots, latent_norm, texture, share)[0]

    def paint(self, y_hat: Tensor, knots: Tensor, latent_norm: Tensor, texture: Tensor | None = None,
              share: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The pixels, and the features of the last stages that they were made of, the finest first: at 1/2 (where there are any), 1/4, 1/8."""
        y_hat, norm = y_hat.float(), latent_norm[:, None, None]
        f = self.entry(y_hat * norm) + self.quality(knots)[:, :, None, None]
        low = self.low(F.leaky_relu(self.down(f), 0.1))
        f = f + F.pixel_shuffle(self.rise(low), 2)
        moved: list[Tensor | float] = [0.0, 0.0, 0.0]
        if texture is not None and share is not None:
            moved[:len(self.texture.widths)] = [t * share[:, None, None, None] for t in self.texture(f, self.entry(texture * norm))]
        f = self.at16(f + moved[0])
        f8 = self.at8(F.leaky_relu(F.pixel_shuffle(self.to8(f), 2) + moved[1], 0.1))
        f4 = self.at4(F.leaky_relu(F.pixel_shuffle(self.to4(f8), 2) + moved[2], 0.1))
        features: tuple[Tensor, ...] = (f4, f8)
        detail = depth_to_space(self.out(f4).float(), 4)
        if self.config.half:
            f2 = self.at2(F.leaky_relu(F.pixel_shuffle(self.to2(f4), 2), 0.1))
            features = (f2, *features)
            detail = detail + depth_to_space(self.out2(f2).float(), 2)
        with torch.autocast(y_hat.device.type, enabled=False):
            blocks = depth_to_space(self.linear(y_hat), 16)
        return PIXEL_UNIT * (detail + blocks) + PIXEL_OFFSET, features
