"""Measures remac through its public interface: `python -m benchmarks.rd_remac`.

Streams are coded and decoded from their bytes alone, so all overhead counts. What was measured is named by the codec hash that the streams carry
(FORMAT 2.1), by what is coded of two seeded synthetic pictures, of which one was interpolated from a Bayer mosaic, since the codec hash is of the
network alone, and by the PSNR that the ground decoder reaches on them, as it is not normative and the stream does not name it; a change of any makes
a run start anew. Ground decoding may take long; a run that was cut off goes on where it stopped.
"""
from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datasets import EVALUATION_SETS, FOLDERS, evaluation_images
from benchmarks.measure import Peer, Picture, as_rgb, run
from benchmarks.metrics import psnr_db
from benchmarks.store import RESULTS
from remac_runtime import images, mosaics
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.exits import reported
from remac_runtime.format import BAND_ROWS
from remac_runtime.packets import scan

QUALITIES = (0, 9, 18, 27, 36, 45, 54, 63)
DEFAULT_VARIANT, FIRST_VARIANT = "full", "first"
VARIANTS: dict[str, dict[str, Any]] = {      # keywords of remac_runtime.encode
    DEFAULT_VARIANT: {},
    FIRST_VARIANT: {},                       # with the ground decoder that the codec was trained with, as all but the default
    "noref": {"references": False},
    "bands128": {"band_rows": 128},          # half of what a lost packet costs; what rd_float compares with
}
VARIANT_KEYWORDS = {key for keywords in VARIANTS.values() for key in keywords}      # others, as the threads, change no result
PROBE_SIDE = 256
PROBE_QUALITY = 36
PROBE_PATTERN = 1            # of the second probe's mosaic
HASH_DIGITS = 16


def encode(picture: Picture, quality: float, keywords: dict[str, Any]) -> bytes:
    """A stream of remac, of uint8[H,W] or [H,W,3]."""
    import remac_runtime
    return bytes(remac_runtime.encode(picture, quality=int(quality), **keywords))


def decode(coded: bytes, keywords: dict[str, Any]) -> Picture:
    """The picture of a stream, uint8[H,W,3]; a grey one is repeated in the three planes."""
    import remac_runtime
    return as_rgb(np.asarray(remac_runtime.decode(coded, **keywords)))


def probe_picture() -> Picture:
    """A picture that depends on nothing but this function: smooth random waves and a little noise, uint8[256,256,3]."""
    generator = np.random.default_rng(1)
    row, column = np.mgrid[0:PROBE_SIDE, 0:PROBE_SIDE] / PROBE_SIDE
    planes = np.zeros((PROBE_SIDE, PROBE_SIDE, 3))
    for wave in range(1, 25):
        angle, phase = generator.uniform(0, 2 * np.pi, 2)
        ripple = np.sin(2 * np.pi * wave * (np.cos(angle) * row + np.sin(angle) * column) + phase)
        planes += ripple[..., None] * generator.uniform(0.5, 1.0, 3) / wave
    planes += generator.normal(0, 0.05, planes.shape)
    return np.clip(128 + 40 * planes, 0, 255).astype(np.uint8)


def probe_pictures() -> dict[str, Picture]:
    """The two pictures whose streams tell encoders of one network apart."""
    plain = probe_picture()
    return {"the probe": plain, "its mosaic": mosaics.interpolated(plain, PROBE_PATTERN)}


def named(streams: Mapping[str, bytes]) -> str:
    """The streams of the probes by hash, in words."""
    return ", ".join(f"{hashlib.sha256(stream).hexdigest()[:HASH_DIGITS]} of {name}" for name, stream in streams.items())


def probe_streams(encoder: Encoder) -> str:
    """What an encoder makes of the probes, as results of its time carry it (`earlier` of sources.py reads it)."""
    wanted = EncodeOptions(quality=PROBE_QUALITY)
    return named({name: encoder.encode(images.Picture(picture), wanted) for name, picture in probe_pictures().items()})


def describe(encode_keywords: dict[str, Any], decode_keywords: dict[str, Any]) -> str:
    """The settings string of the results: options, codec hash, the streams of the probes by hash and what the ground decoder makes of them."""
    probes = probe_pictures()
    streams = {name: encode(picture, PROBE_QUALITY, encode_keywords) for name, picture in probes.items()}
    hashes = named(streams)
    reached = ", ".join(f"{psnr_db(picture, decode(streams[name], decode_keywords)):.3f} dB on {name}" for name, picture in probes.items())
    encode_keywords = {"band_rows": BAND_ROWS} | encode_keywords       # a changed default is a changed codec
    options = ", ".join(f"{key}={value}" for key, value in sorted(encode_keywords.items()) if key in VARIANT_KEYWORDS)
    codec_hash = scan(streams["the probe"]).header.codec_hash.hex()
    return f"remac {options}; codec hash {codec_hash}; streams {hashes}; ground decoder {reached}"


def codec(name: str, encode_keywords: dict[str, Any], decode_keywords: dict[str, Any]) -> Peer:
    """Remac as a codec under test."""
    return Peer(name, describe(encode_keywords, decode_keywords), QUALITIES,
                lambda picture, quality: encode(picture, quality, encode_keywords), lambda coded: decode(coded, decode_keywords))


def first_decoder(model: Path | None) -> str | None:
    """The ground decoder of the lowest version; None where there is none."""
    from remac_runtime.ground import ground_files
    from remac_runtime.model import GROUND_FOLDER, model_folder
    files = ground_files(model_folder(model) / GROUND_FOLDER)
    return files[0].label if files else None


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rd_remac", description="Measure remac on the evaluation pictures.")
    parser.add_argument("--data", metavar="FOLDER", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--sets", nargs="+", choices=sorted(FOLDERS), default=list(EVALUATION_SETS))
    parser.add_argument("--name", default="remac-m", help="of the profile in the results; a variant other than full is appended")
    parser.add_argument("--variant", choices=sorted(VARIANTS), default=DEFAULT_VARIANT,
                        help="first: with the first ground decoder; noref: with it, without references; bands128: with it, in bands of 128 rows")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="the model; by default the one that remac-runtime finds itself")
    parser.add_argument("--decoder", metavar="NAME@VERSION", help="ground decoder; by default the newest one, as in `remac decode`")
    parser.add_argument("--backend", help="of both sides: onnxruntime, numpy or torch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--force", action="store_true", help="measure again what is there of this name")
    parser.add_argument("--out", type=Path, default=RESULTS / "rd_remac.json")
    return parser.parse_args(arguments)


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 with one line on standard error where it cannot."""
    import remac_runtime
    options = parse_arguments(arguments)
    common = {"model": options.model, "backend": options.backend, "threads": options.threads}
    name = options.name if options.variant == DEFAULT_VARIANT else f"{options.name}-{options.variant}"
    images = evaluation_images(options.data, tuple(options.sets))
    default = None if options.variant == DEFAULT_VARIANT else first_decoder(options.model)
    decoding = common | {"decoder": options.decoder or default}
    subject = codec(name, common | VARIANTS[options.variant], decoding)
    run([subject], images, options.out, {"numpy": version("numpy"), "remac-runtime": remac_runtime.__version__}, options.force)
    return 0


if __name__ == "__main__":
    sys.exit(main())
