"""Find the filters of ground decoders for mosaics (remac_runtime/mosaic_filters.py): `python -m calibration.mosaics --weights weights/rover-m`.

Training pictures, as simulated cameras with a Bayer mosaic take them, sharp and soft ones and ones of all kinds of colours, are coded at some
qualities and decoded by all ground decoders of the folder. The filters are those that take the decoded samples of the mosaic nearest to what they
were, by least squares; what a camera turned or mirrored would show has the same ones. `export/ground_decoder.py` writes them into the decoders'
files.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from remac.cameras import augmented, sensed, to_tensor
from remac.data import PatchSampler, load_picture, picture_paths
from remac.weights import GroundModule, ground_decoders, load_ground
from remac_runtime import mosaics
from remac_runtime.bench.arguments import count
from remac_runtime.choices import PATTERNS
from remac_runtime.codec import Decoded, Decoder, EncodeOptions, Encoder
from remac_runtime.exits import reported
from remac_runtime.files import replacing
from remac_runtime.format import PHASES
from remac_runtime.ground import TEXTURE_PLANE
from remac_runtime.images import Picture
from remac_runtime.mars import data_folder
from remac_runtime.model import load_model
from remac_runtime.mosaic_filters import CHANNELS, FILE, REACH, SHAPE, SIDE, MosaicFilters, differences

QUALITIES = (18, 27, 36, 45, 54, 63)        # below nothing is gained
PICTURES, SEED = 96, 31
TRIALS = 64                     # of a picture, until it has a mosaic and colours: half have none, and a third are grey
WINDOW = 512                    # pixels a side of a training picture, twice those of what the camera shows
ENLARGED = (0.75, 2.25)         # before, clipped to 1 to 2: cameras are not as sharp as pictures at half size
RIDGE = 1e-6                    # of the mean square of what a filter reads
LOSSLESS = 1e-3                 # mean squared error below which all pictures are alike
EXAMPLES = "examples:\n  python -m calibration.mosaics\n  python -m calibration.mosaics --weights weights/rover-s --pictures 24"

Pixels = NDArray[np.uint8]
Filters = NDArray[np.float64]   # [2,2,5,5,3]


def _rings() -> dict[tuple[int, int], NDArray[np.intp]]:
    """Which places of a window have one weight, int[5,5] by the place in the mosaic: about red and blue those that turning and mirroring moves into
    each other; about green mirroring alone, as its neighbours of one colour lie in its row and those of the other in its column."""
    away = np.abs(np.mgrid[-REACH:REACH + 1, -REACH:REACH + 1])
    turned = np.sort(away, 0)
    square, cross = (np.unique(y * SIDE + x, return_inverse=True)[1].reshape(SIDE, SIDE) for y, x in (turned, away))
    return {(0, 0): square, (0, 1): cross, (1, 0): cross.T, (1, 1): square}


RINGS = _rings()


class Equations:
    """The normal equations of the filters of one quality, summed up over pictures."""

    def __init__(self) -> None:
        sizes = {CHANNELS[place]: 3 * (int(rings.max()) + 1) for place, rings in RINGS.items()}
        self.squares = {channel: np.zeros((size, size)) for channel, size in sizes.items()}
        self.products = {channel: np.zeros(size) for channel, size in sizes.items()}

    def add(self, decoded: Pixels, camera: Pixels, pattern: int) -> None:
        """Count decoded pixels uint8[H,W,3] of a camera's picture in, by their errors in shares of the picture's own."""
        read = {place: _at(decoded, camera, pattern, place) for place in RINGS}
        weight = 1 / max(LOSSLESS, float(np.mean([np.mean(np.square(error)) for _, error in read.values()])))
        for place, (seen, error) in read.items():
            self.squares[CHANNELS[place]] += weight * seen.T @ seen
            self.products[CHANNELS[place]] += weight * seen.T @ error

    def solved(self) -> Filters:
        """What is added to the sample at each place."""
        result = np.zeros(SHAPE)
        for place, rings in RINGS.items():
            squares = self.squares[CHANNELS[place]]
            ridge = RIDGE * np.trace(squares) / len(squares)
            solution = np.linalg.solve(squares + ridge * np.eye(len(squares)), self.products[CHANNELS[place]])
            result[place] = solution.reshape(-1, 3)[rings]
        return result


def _at(decoded: Pixels, camera: Pixels, pattern: int, place: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At one place of the mosaic, for all its n samples: what the filter reads, float[n,3*rings], and by how much they were decoded too small."""
    row, column = (here ^ red for here, red in zip(place, divmod(pattern - 1, 2), strict=True))
    error = (camera.astype(np.float64) - decoded)[row::2, column::2, CHANNELS[place]]
    around, rings = differences(decoded, pattern), RINGS[place]
    seen = np.zeros((*error.shape, int(rings.max()) + 1, 3))
    for y, x in np.ndindex(rings.shape):
        seen[:, :, rings[y, x]] += around[row + y::2, column + x::2][:error.shape[0], :error.shape[1]]
    return seen.reshape(error.size, -1), error.ravel()


def _enlarged(window: torch.Tensor, factor: float) -> torch.Tensor:
    """The upper left of float[3,H,W], enlarged: the camera, which halves it, sees it as soft as its own pixels at a factor of 2."""
    size = [round(factor * side) for side in window.shape[1:]]
    larger = F.interpolate(window[None], size=size, mode="bicubic", align_corners=False)[0]
    return larger[:, :window.shape[1], :window.shape[2]].clamp(0, 255).round()


def camera_pictures(data: Path, limit: int) -> Iterator[tuple[Pixels, int]]:
    """What cameras with a mosaic show of training pictures spread over all, uint8[H,W,3], and the pattern."""
    paths = picture_paths(data / "train")
    for number, path in enumerate(paths[::-(-len(paths) // limit)]):
        picture = PatchSampler.at_least(load_picture(path), WINDOW)
        top, left = (side - WINDOW >> 1 for side in picture.shape[:2])
        rng = np.random.default_rng((SEED, number))
        window = _enlarged(to_tensor(picture[top:top + WINDOW, left:left + WINDOW]), float(np.clip(rng.uniform(*ENLARGED), 1, 2)))
        drawn = (sensed(augmented(window, rng), rng) for _ in range(TRIALS))
        found = next(((seen, pattern) for seen, pattern in drawn if pattern and not torch.equal(seen[0], seen[2])), None)
        if found:
            yield mosaics.interpolated(found[0].permute(1, 2, 0).numpy().astype(np.uint8), found[1]), found[1]


def _pixels(module: GroundModule, decoded: Decoded) -> Pixels:
    """What a ground decoder makes of a stream's latents, cut to the picture's size; `calibration` has no ONNX Runtime."""
    header, planes = decoded.header, decoded.texture
    share = torch.tensor([0.0 if planes is None else 1.0])
    texture = torch.zeros(len(PHASES), *TEXTURE_PLANE, decoded.y_hat.shape[2]) if planes is None else torch.from_numpy(planes.copy())
    with torch.inference_mode():
        pixels = module(torch.from_numpy(decoded.y_hat), torch.tensor([float(header.quality)]), texture, share)
    return np.asarray(pixels.numpy()[:header.height, :header.width])


def find(weights: Path, data: Path, limit: int) -> MosaicFilters:
    """The filters for the decoders of a weights folder, from up to `limit` training pictures. Raises BadNetwork."""
    from tqdm import tqdm
    model = load_model(weights)
    modules = [load_ground(weights, config.name) for config in ground_decoders(weights)]
    equations = {quality: Equations() for quality in QUALITIES}
    with Encoder(model, "torch") as encoder, Decoder(model, encoder.backend) as decoder:
        for camera, pattern in tqdm(list(camera_pictures(data, limit)), unit="picture", disable=None):
            for quality in QUALITIES:
                decoded = decoder.decode(encoder.encode(Picture(camera), EncodeOptions(quality, mosaic=PATTERNS[pattern])))
                for module in modules:
                    equations[quality].add(_pixels(module, decoded), camera, pattern)
    solved = np.stack([equations[quality].solved() for quality in QUALITIES])
    return MosaicFilters(model.network.hash.hex(), QUALITIES, solved.astype(np.float32))


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m calibration.mosaics", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("weights/rover-m"), help="weights folder (weights/rover-m)")
    parser.add_argument("--data", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--pictures", type=count, default=PICTURES, metavar="N", help=f"how many training pictures at most ({PICTURES})")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    filters = find(options.weights, data_folder(options.data), options.pictures)
    path = options.weights / FILE
    with replacing(path) as temporary:
        temporary.write_text(filters.text() + "\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size:,} bytes, for codec {filters.codec}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
