"""A stand-in codec for tests of the command `remac`: rows of pixels, zlib."""
from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from remac_runtime import cli, packets
from remac_runtime.choices import MAX_PIXELS
from remac_runtime.codec import EncodeOptions, LossReport
from remac_runtime.errors import BadInput, CorruptStream, WrongModel
from remac_runtime.images import Picture, companding_of, from_pixels, to_pixels

ROOT = Path(__file__).resolve().parents[1]
CODEC = bytes(range(8))
RNG = np.random.default_rng(3)
PICTURE = RNG.integers(0, 256, (300, 90, 3), dtype=np.uint8)


# ---- the stand-in codec

@dataclasses.dataclass(frozen=True)
class FakeModel:
    bank: object | None = "a bank"
    bank_problem: str | None = None


class FakeEncoder:
    """Each band of 128 rows, whatever the options say, is the zlib stream of its padded pixels."""

    def __init__(self, model: FakeModel, backend: str | None = None, threads: int = 1, ground: object = None) -> None:
        self.arguments = (model, backend, threads)

    def __enter__(self) -> FakeEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def encode(self, picture: Picture, options: EncodeOptions) -> bytes:
        rows, columns = picture.samples.shape[:2]
        header = packets.StreamHeader(columns, rows, CODEC, "fake", options.quality, picture.depth, picture.grey, companding_of(picture.depth),
                                      128, image_id=options.image_id)
        padded = np.pad(to_pixels(picture), ((0, header.padded_height - rows), (0, header.padded_width - columns), (0, 0)), "edge")
        spans = [header.rows_of(band) for band in range(header.bands)]
        data = packets.pack_stream(header, [packets.BandPayload(zlib.compress(padded[a:b].tobytes()), options.quality, 2) for a, b in spans])
        if options.target_bytes is not None and len(data) > options.target_bytes:
            raise BadInput(f"the picture does not fit {options.target_bytes} bytes: the smallest possible size is {len(data)}")
        return data


@dataclasses.dataclass(frozen=True)
class FakeDecoded:
    header: packets.StreamHeader
    picture: Picture
    bits: np.ndarray
    report: LossReport
    notes: ClassVar[dict[str, str]] = {"remac-decoder": "fake@1"}


class FakeDecoder(FakeEncoder):
    def decode(self, data: bytes, strict: bool = False, max_pixels: int = MAX_PIXELS) -> FakeDecoded:
        scanned = packets.scan(data, max_pixels)
        header = scanned.header
        if not CODEC.startswith(header.codec_hash):
            raise WrongModel(f"the stream was made with codec {header.codec_hash.hex()}, the model is {CODEC.hex()}: name the right --model")
        if strict and scanned.lost:
            raise CorruptStream(f"bands {scanned.lost} are lost: decode without `strict` to conceal them")
        pixels = np.full((header.padded_height, header.padded_width, 3), 128, np.uint8)
        for band, payload in scanned.bands.items():
            first, end = header.rows_of(band)
            pixels[first:end] = np.frombuffer(zlib.decompress(payload.payload), np.uint8).reshape(end - first, -1, 3)
        picture = from_pixels(pixels[:header.height, :header.width], header.depth, header.grey)
        bits = RNG.uniform(0, 500, (header.padded_height // 16, header.padded_width // 16)).astype(np.float32)
        return FakeDecoded(header, picture, bits, LossReport(scanned.lost, header.bands, scanned.skipped_bytes))


def remac(*arguments: str) -> int:
    try:
        return int(cli.main(list(arguments)))
    except SystemExit as stop:   # argparse
        return int(stop.code or 0)


def damaged(data: bytes, band: int) -> bytes:
    """The stream with one bit of a band's payload flipped."""
    position = next(packet.end for packet in packets.find_packets(data) if packet.band == band) - 3
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1:]
