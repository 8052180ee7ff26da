"""Adapters to the classical codecs that remac is measured against.

Each is given its best mode for PSNR within the effort named: one thread, no metadata, and one-component files where the three
planes of a picture are equal. The settings that matter, and why, stand with each adapter. The libraries are imported where they
are used; pillow-heif's wheel holds x265, which is GPL: it serves measurements only and nothing else here may use it.
"""
from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image, features

from benchmarks.measure import Peer, Picture, as_rgb

# Down to the lowest setting that an encoder has, or to below the lowest quality of JPEG in the BD-rates: a curve that ends within their range for
# want of a measurement leaves out what costs JPEG most, and its BD-rate could not be compared with that of a curve that goes on.
JPEG_QUALITIES = (5, 8, 12, 18, 26, 36, 48, 60, 70, 78, 85, 90, 95, 98)
WEBP_QUALITIES = (0, 1, 5, 12, 20, 30, 42, 55, 68, 78, 86, 92, 96, 98, 100)
AVIF_QUALITIES = (0, 1, 4, 9, 15, 22, 30, 38, 46, 54, 62, 70, 78, 85, 91, 96, 99)
AVIF_420_QUALITIES = (0, 1, 7, 15, 30, 46, 62, 74, 85, 93, 99)      # fewer: these encoders take minutes a picture
HEVC_QUALITIES = (0, 10, 26, 42, 57, 71, 85, 92, 98)
JPEG2000_RATIOS = (2000.0, 1000.0, 600.0, 400.0, 280.0, 200.0, 140.0, 100.0, 70.0, 50.0, 36.0, 26.0, 18.0, 13.0, 9.5, 7.0, 5.0, 3.6)
HTJ2K_STEPS = (0.3, 0.2, 0.14, 0.1, 0.07, 0.05, 0.035, 0.025, 0.018, 0.012, 0.009, 0.006, 0.004)
JPEGXL_DISTANCES = (25.0, 18.0, 13.0, 9.0, 6.5, 4.5, 3.2, 2.2, 1.5, 1.0, 0.6, 0.35, 0.2, 0.1)

Options = Callable[[float, bool], dict[str, Any]]


def pillow_decode(coded: bytes) -> Picture:
    """The pixels of a file that Pillow reads, uint8[H,W,3]."""
    with Image.open(io.BytesIO(coded)) as image:
        return np.asarray(image.convert("RGB"))


def pillow_peer(name: str, settings: str, image_format: str, qualities: tuple[float, ...], options: Options) -> Peer:
    """A codec behind Pillow's save; `options` gives the keywords for a quality and for grey or colour."""
    def encode(picture: Picture, quality: float) -> bytes:
        image = Image.fromarray(picture)
        file = io.BytesIO()
        image.save(file, image_format, **options(quality, image.mode == "L"))
        return file.getvalue()

    return Peer(name, settings, qualities, encode, pillow_decode)


def jpeg(subsampling: str) -> Peer:
    """Baseline JPEG by libjpeg-turbo with optimised Huffman tables; 4:2:0 is the anchor of all BD-rates."""
    def options(quality: float, grey: bool) -> dict[str, Any]:
        return {"quality": int(quality), "optimize": True, "subsampling": subsampling}

    name = "jpeg" + subsampling.replace(":", "")
    return pillow_peer(name, f"Pillow JPEG, optimize, {subsampling}", "JPEG", JPEG_QUALITIES, options)


def webp(method: int = 6) -> Peer:
    """Lossy WebP, by default with the slowest method; the format subsamples chroma, so its PSNR ends at 41 to 46 dB on colour
    pictures. Pillow cannot switch off its noise shaping, which serves the eye and costs a little PSNR."""
    def options(quality: float, grey: bool) -> dict[str, Any]:
        return {"quality": int(quality), "method": method}

    return pillow_peer("webp", f"Pillow WebP, method {method}", "WEBP", WEBP_QUALITIES, options)


def jpeg2000() -> Peer:
    """JPEG 2000 by OpenJPEG: 9/7 wavelet, one quality layer, bare codestream; the quality is the compression ratio.

    Pillow leaves the multi-component transform off, which would cost colour pictures twice the bytes.
    """
    def options(ratio: float, grey: bool) -> dict[str, Any]:
        return {"quality_mode": "rates", "quality_layers": [ratio], "irreversible": True, "mct": 0 if grey else 1, "no_jp2": True}

    return pillow_peer("jpeg2000", "Pillow JPEG 2000, irreversible, mct, one layer by ratio, codestream", "JPEG2000", JPEG2000_RATIOS, options)


def avif(subsampling: str, speed: int = 4) -> Peer:
    """AVIF still picture by libaom, by default at speed 4, tuned for PSNR, no tiles (Pillow would cut large pictures into some).

    libavif's own choice is to tune still pictures for perceived quality ("iq"), which costs 4 to 6 % of the JPEG bytes at equal PSNR.
    """
    def options(quality: float, grey: bool) -> dict[str, Any]:
        chosen: dict[str, Any] = {"quality": int(quality), "speed": speed, "max_threads": 1, "autotiling": False, "advanced": {"tune": "psnr"}}
        return chosen if grey else chosen | {"subsampling": subsampling}

    name, qualities = "avif" + subsampling.replace(":", ""), AVIF_QUALITIES if subsampling == "4:4:4" else AVIF_420_QUALITIES
    return pillow_peer(name, f"Pillow AVIF, speed {speed}, {subsampling}, tune psnr, no tiles", "AVIF", qualities, options)


def hevc() -> Peer:
    """HEVC intra by x265 in libheif, 4:4:4, its preset (slow); the quality is 100 - 2 CRF.

    libheif tunes for SSIM, which costs 1 to 4 % of the JPEG bytes at equal PSNR. x265 codes I frames three QP finer than asked,
    since it expects other frames to lean on them (ipratio=1.0 ends it), and cuts them into rows for its threads, which resets
    the contexts of the entropy coder (wpp=0 ends it); both change little.
    """
    encoder = {"x265:pools": "1", "x265:ipratio": "1.0", "x265:wpp": "0", "tune": "psnr"}

    def options(quality: float, grey: bool) -> dict[str, Any]:
        chosen: dict[str, Any] = {"quality": int(quality), "enc_params": dict(encoder)}
        return chosen if grey else chosen | {"chroma": "444"}

    settings = "pillow-heif x265 4:4:4, preset slow, tune psnr, ipratio 1, no wpp"
    pillow = pillow_peer("hevc444", settings, "HEIF", HEVC_QUALITIES, options)

    def registered(picture: Picture, quality: float) -> bytes:
        import pillow_heif
        pillow_heif.register_heif_opener()
        return pillow.encode(picture, quality)

    return replace(pillow, encode=registered)


def jpegxl(effort: int = 7) -> Peer:
    """Lossy JPEG XL (VarDCT) by libjxl, by default at effort 7, bare codestream; the quality is the Butteraugli distance it aims at, not PSNR."""
    def encode(picture: Picture, distance: float) -> bytes:
        import imagecodecs
        return bytes(imagecodecs.jpegxl_encode(picture, distance=distance, effort=effort, numthreads=1, usecontainer=False))

    def decode(coded: bytes) -> Picture:
        import imagecodecs
        return as_rgb(np.asarray(imagecodecs.jpegxl_decode(coded, numthreads=1)))

    return Peer("jpegxl", f"imagecodecs JPEG XL, effort {effort}, codestream", JPEGXL_DISTANCES, encode, decode)


def htj2k() -> Peer:
    """High-throughput JPEG 2000 by OpenJPH: 9/7 wavelet; the quality is the base step of the quantiser. Only its speed is measured.

    Decoded by OpenJPEG: imagecodecs' own decoder lets samples that pass 255 wrap around, which costs up to 8 dB.
    """
    def encode(picture: Picture, step: float) -> bytes:
        import imagecodecs
        return bytes(imagecodecs.htj2k_encode(picture, step, reversible=False))

    def decode(coded: bytes) -> Picture:
        import imagecodecs
        return as_rgb(np.asarray(imagecodecs.jpeg2k_decode(coded)))

    return Peer("htj2k", "imagecodecs HTJ2K (OpenJPH), irreversible", HTJ2K_STEPS, encode, decode)


def all_peers() -> tuple[Peer, ...]:
    """Every peer, the anchor jpeg420 first."""
    return (jpeg("4:2:0"), jpeg("4:4:4"), webp(), jpeg2000(), avif("4:4:4"), avif("4:2:0"), hevc(), jpegxl())


def library_versions() -> dict[str, str]:
    """Versions of the packages and of the codec libraries inside them."""
    import imagecodecs
    import pillow_heif
    from PIL import _avif  # the only place where Pillow tells which AV1 encoder it holds
    versions = {name: version(name) for name in ("numpy", "pillow", "pillow-heif", "imagecodecs")}
    for library, feature in (("libjpeg-turbo", "libjpeg_turbo"), ("libwebp", "webp"), ("openjpeg", "jpg_2000"), ("libavif", "avif")):
        versions[library] = str(features.version(feature))
    versions["av1"] = str(_avif.codec_versions())
    versions["libheif"] = str(pillow_heif.libheif_version())
    versions["x265"] = str(pillow_heif.libheif_info()["encoders"]["x265"])
    versions["libjxl"] = str(imagecodecs.jpegxl_version())
    return versions
