"""The paper's baselines, retrained here: AR-CNN [11] and DnCNN [13], both on RGB, both learning the residual of the compressed picture."""
from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from remac.config import PIXEL_UNIT
from remac.decoder import conv
from remac_runtime.format import PIXEL_OFFSET


class Residual(nn.Module):
    """A stack of layers whose output is added to the picture, float[B,3,H,W] of 8-bit units; its last layer starts at zero."""

    def __init__(self, layers: list[nn.Module], last: nn.Conv2d) -> None:
        super().__init__()
        nn.init.zeros_(last.weight)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, picture: Tensor) -> Tensor:
        residual: Tensor = self.layers((picture - PIXEL_OFFSET) / PIXEL_UNIT)
        return picture + residual.float() * PIXEL_UNIT


def arcnn() -> Residual:
    """AR-CNN: 9x9x64, 7x7x32, 1x1x16, 5x5 (feature extraction, enhancement, mapping, reconstruction). The residual is ours: it trains faster."""
    return Residual([conv(3, 64, 9), nn.ReLU(), conv(64, 32, 7), nn.ReLU(), conv(32, 16, 1), nn.ReLU()], conv(16, 3, 5))


def dncnn(depth: int = 20, channels: int = 64) -> Residual:
    """DnCNN-B's depth of 20 layers of 64 channels with batch normalisation, as used for JPEG."""
    layers: list[nn.Module] = [conv(3, channels), nn.ReLU()]
    for _ in range(depth - 2):
        layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-3].weight, nonlinearity="relu")  # type: ignore[arg-type]
    return Residual(layers, conv(channels, 3))


BASELINES: dict[str, Callable[..., Residual]] = {"arcnn": arcnn, "dncnn": dncnn}
