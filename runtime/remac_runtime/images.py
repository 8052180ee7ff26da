"""Pictures in and out: files to samples, samples to the codec's pixels (FORMAT 3) and back. PGM, PPM and writing PNG need no Pillow."""
from __future__ import annotations

import functools
import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.errors import BadInput
from remac_runtime.files import write_atomically
from remac_runtime.format import SIDE_MAX
from remac_runtime.packets import COMPANDING_NONE, COMPANDING_SQUARE_ROOT
from remac_runtime.png import png_bytes

DEPTH_NOTE = "remac-depth"     # of a PNG of 16 bits a sample: how many of them are significant
READABLE = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".pgm", ".ppm")
WRITABLE = (".png", ".pgm", ".ppm")
_PILLOW_FORMATS = ("PNG", "TIFF", "JPEG", "WEBP")
_START_BYTES, _PNG_DEPTH_AT = 25, 24
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC = 258, 262
EXIF_ORIENTATION = 0x0112
_CODES = 256
_DEPTH_MAX = 16
# One white space a turn: repeats within the repeat would let a damaged header take exponential time.
_NETPBM = re.compile(rb"P([56])(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")


@dataclass(frozen=True)
class Picture:
    """Samples uint8[H,W] or uint8[H,W,3] of depth 8, or uint16[H,W] of depth 9..16 (all below 2**depth)."""

    samples: NDArray[Any]
    depth: int = 8

    @property
    def grey(self) -> bool:
        return self.samples.ndim == 2

    @property
    def size(self) -> str:
        return f"{self.samples.shape[1]}x{self.samples.shape[0]}"


def as_picture(array: Any, depth: int | None = None) -> Picture:
    """A Picture of uint8[H,W,3] (RGB), uint8[H,W] or uint16[H,W] (grey). Raises BadInput.

    `depth`: significant bits of uint16 samples, 16 unless said.
    """
    samples = np.asarray(array)
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    colour = samples.ndim == 3 and samples.shape[2] == 3
    if samples.dtype == np.uint16 and colour:
        raise BadInput("the picture has 16-bit colour, remac codes colour of 8 bits and grey of up to 16: convert it to 8 bits a channel")
    if samples.dtype not in (np.uint8, np.uint16) or not (samples.ndim == 2 or colour):
        raise BadInput(f"the picture is {samples.dtype}{list(samples.shape)}, expected uint8[H,W,3], uint8[H,W] or uint16[H,W]: convert it to one")
    rows, columns = samples.shape[:2]
    if not (0 < rows <= SIDE_MAX and 0 < columns <= SIDE_MAX):
        raise BadInput(_too_large(columns, rows))
    if samples.dtype == np.uint8:
        if depth not in (None, 8):
            raise BadInput(f"the picture has 8-bit samples, depth {depth} asks for 16-bit grey ones: leave --depth away")
        return Picture(samples)
    depth = _DEPTH_MAX if depth is None else depth
    if not 8 < depth <= _DEPTH_MAX:
        raise BadInput(f"depth {depth} is not in 9..{_DEPTH_MAX}: name the significant bits of the 16-bit samples")
    if depth < _DEPTH_MAX and samples.max() >> depth:
        raise BadInput(f"the picture has a sample of {samples.max()}, depth {depth} holds 0..{(1 << depth) - 1}: name a larger --depth")
    return Picture(samples, depth)


def _too_large(columns: int, rows: int) -> str:
    if columns and rows:
        return f"the picture is {columns}x{rows} pixels, the format holds up to {SIDE_MAX} a side: cut it into tiles"
    return f"the picture is {columns}x{rows} pixels: it needs at least one"


# ---- FORMAT 3

@functools.cache
def expanding_table(depth: int) -> NDArray[np.uint16]:
    """I(n) for the 256 codes, uint16[256]: what a code stands for at `depth` bits."""
    n = np.arange(_CODES, dtype=np.int64)
    top = (1 << depth) - 1
    return ((n * n * top + 32512) // 65025).astype(np.uint16)


@functools.cache
def companding_table(depth: int) -> NDArray[np.uint8]:
    """The code of every sample of `depth` bits, uint8[2**depth]: the one whose I(n) is nearest, the lower on a tie."""
    values = expanding_table(depth).astype(np.int64)
    # Code n + 1 is nearer than n where 2 * sample > I(n) + I(n+1); I never falls, so the codes below the nearest one are counted.
    return np.searchsorted(values[:-1] + values[1:], 2 * np.arange(1 << depth, dtype=np.int64), side="left").astype(np.uint8)


def companding_of(depth: int) -> int:
    """The companding field of FORMAT 2 for a bit depth."""
    return COMPANDING_SQUARE_ROOT if depth > 8 else COMPANDING_NONE


def to_pixels(picture: Picture) -> NDArray[np.uint8]:
    """The codec's pixel tensor uint8[H,W,3] of a picture, not yet padded."""
    samples = picture.samples if picture.depth == 8 else companding_table(picture.depth)[picture.samples]
    return np.ascontiguousarray(np.broadcast_to(samples[:, :, None], (*samples.shape, 3)) if picture.grey else samples)


def from_pixels(pixels: NDArray[np.uint8], depth: int, grey: bool) -> Picture:
    """The picture of a decoded pixel tensor uint8[H,W,3], already cropped."""
    if not grey:
        return Picture(np.ascontiguousarray(pixels))
    mean = grey_mean(pixels)
    return Picture(mean if depth == 8 else expanding_table(depth)[mean], depth)


def grey_mean(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The rounded mean uint8[H,W] of the channels of uint8[H,W,3]; a mean of three is never half-way between two integers."""
    mean: NDArray[np.uint8] = ((pixels.sum(2, dtype=np.uint16) + 1) // 3).astype(np.uint8)
    return mean


def psnr(a: Picture, b: Picture) -> float:
    """PSNR in dB over all samples, with the peak of the depth; inf for equal pictures."""
    difference = a.samples.astype(np.float64) - b.samples.astype(np.float64)
    error = float(np.mean(difference * difference))
    peak = (1 << a.depth) - 1
    return 10 * math.log10(peak * peak / error) if error else math.inf


# ---- reading

def load_picture(path: Path | str, depth: int | None = None) -> Picture:
    """Read a PNG, TIFF, JPEG, WebP, PGM or PPM file. `depth`: significant bits of 16-bit samples. Raises BadInput, with the path and what to do."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
        if not start:
            raise BadInput("is empty (0 bytes): copy or receive it again")
        samples, file_depth = _read_netpbm(path.read_bytes()) if start[:1] == b"P" and start[1:2].isdigit() else _read_with_pillow(path, start)
        return as_picture(samples, depth or file_depth)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file: check the path") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder: name the pictures in it ({path}/*.png)") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error}): check the file and its permissions") from None
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except MemoryError:
        raise BadInput(f"{path}: does not fit this machine's memory: cut it into tiles") from None


def _read_netpbm(content: bytes) -> tuple[NDArray[Any], int | None]:
    """Binary PGM or PPM. Samples whose maximum is not of the form 2**bits - 1 are scaled to 8 bits, or kept as they are above."""
    if content[:2] not in (b"P5", b"P6"):
        raise BadInput("is a PNM file of text or of 1-bit samples: write it as binary PGM or PPM (P5, P6)")
    header = _NETPBM.match(content)
    if header is None:
        raise BadInput("has a damaged PGM/PPM header: write it again")
    channels = 3 if header[1] == b"6" else 1
    columns, rows, top = (int(header[group]) for group in (2, 3, 4))
    if not (0 < columns <= SIDE_MAX and 0 < rows <= SIDE_MAX):
        raise BadInput(_too_large(columns, rows))
    if not 0 < top < 1 << _DEPTH_MAX:
        raise BadInput(f"has a largest value of {top}, expected 1..65535: write it again")
    dtype = np.dtype("u1") if top < _CODES else np.dtype(">u2")
    count = columns * rows * channels
    found = (len(content) - header.end()) // dtype.itemsize
    if found < count:
        raise BadInput(f"is truncated: {found} of {count} samples: copy or receive it again")
    samples = np.frombuffer(content, dtype, count, header.end()).reshape((rows, columns, 3)[:2 + (channels == 3)])
    if samples.max() > top:
        raise BadInput(f"has a sample of {samples.max()} above its largest value {top}: write it again")
    if top < _CODES - 1:
        samples = ((samples.astype(np.uint16) * 510 + top) // (2 * top)).astype(np.uint8)
    return samples, top.bit_length() if top >= _CODES else None


def _read_with_pillow(path: Path, start: bytes) -> tuple[NDArray[Any], int | None]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise BadInput("reading PNG, TIFF, JPEG and WebP needs Pillow: pip install pillow, or convert the picture to PGM or PPM") from None
    try:
        with PILLOW_UNLIMITED, Image.open(path, formats=_PILLOW_FORMATS) as image:
            if max(image.size) > SIDE_MAX:
                raise BadInput(_too_large(*image.size))
            return _samples_of(image, _bits_per_sample(image, start))
    except UnidentifiedImageError:
        raise BadInput("is not a picture that remac reads (PNG, TIFF, JPEG, WebP, PGM, PPM), or its header is damaged: convert it to PNG") from None
    except (BadInput, FileNotFoundError, IsADirectoryError, PermissionError, MemoryError):
        raise
    except Exception as error:   # Pillow's decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, ...
        raise BadInput(f"is truncated or damaged ({_one_line(error)}): copy or receive it again") from None


class _PillowUnlimited:
    """A context without Pillow's limit of pixels: the limit here is SIDE_MAX, which the reader checks before any pixel is decoded.

    Pillow's is one for the process, so the first thread that reads lifts it and the last one puts it back.
    """

    def __init__(self) -> None:
        self._limit: int | None = None
        self._lock, self._readers = threading.Lock(), 0

    def __enter__(self) -> None:
        from PIL import Image
        with self._lock:
            if not self._readers:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._readers += 1

    def __exit__(self, *exception: object) -> None:
        from PIL import Image
        with self._lock:
            self._readers -= 1
            if not self._readers:
                Image.MAX_IMAGE_PIXELS = self._limit


PILLOW_UNLIMITED = _PillowUnlimited()


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _samples_of(image: Any, bits: int) -> tuple[NDArray[Any], int | None]:
    """(samples, depth) of an open Pillow image with `bits` a sample in the file; depth is None where the samples' type says it."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise BadInput(f"holds {image.n_frames} pictures: extract the one you want")
    if image.mode in {"CMYK", "LAB", "HSV", "F"}:
        name = {"CMYK": "CMYK (print) colours", "F": "floating-point samples"}.get(image.mode, f"{image.mode} colours")
        raise BadInput(f"has {name}, remac codes RGB and grey integers: convert it to RGB or grey PNG")
    if bits > 8 and image.mode not in {"I", "I;16", "I;16L", "I;16B", "I;16N"}:
        raise BadInput(f"has {bits}-bit colour or transparency, remac codes colour of 8 bits and grey of up to 16: convert it to 8 bits a channel")
    white_is_zero = image.format == "TIFF" and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0
    image = _upright(image)
    if image.mode.startswith("I"):
        samples, depth = _deep_grey(np.asarray(image), bits)
        return (1 << (depth or _DEPTH_MAX)) - 1 - samples if white_is_zero else samples, depth   # Pillow turns only 8-bit samples round
    palette = image.mode in {"P", "PA"}
    if palette or "transparency" in image.info:
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    if image.mode in {"LA", "La", "RGBA", "RGBa"}:
        image = _opaque(image)
    samples = np.asarray(image.convert("L" if image.mode in {"1", "L"} else "RGB"))
    if palette and np.array_equal(samples[:, :, 0], samples[:, :, 1]) and np.array_equal(samples[:, :, 0], samples[:, :, 2]):
        samples = samples[:, :, 0]   # a palette of greys
    return samples, None


def _bits_per_sample(image: Any, start: bytes) -> int:
    """Bits of a sample in the file, which Pillow hides: it cuts 16-bit colour down to 8 without a word. `start`: first bytes of the file."""
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,))))
    if image.format != "PNG":
        return 8
    noted = image.info.get(DEPTH_NOTE, "")
    return int(noted) if start[_PNG_DEPTH_AT] == _DEPTH_MAX and re.fullmatch("9|1[0-6]", noted) else start[_PNG_DEPTH_AT]


def _upright(image: Any) -> Any:
    """The picture as its EXIF orientation asks for; remac keeps no metadata. `load` comes first: it reports truncated files."""
    from PIL import ImageOps
    image.load()
    return ImageOps.exif_transpose(image) if image.getexif().get(EXIF_ORIENTATION, 1) != 1 else image


def _deep_grey(samples: NDArray[Any], bits: int) -> tuple[NDArray[Any], int | None]:
    if samples.min() < 0 or samples.max() >= 1 << _DEPTH_MAX:
        raise BadInput(f"has samples from {samples.min()} to {samples.max()}, remac codes up to 16 bits: scale it to 0..65535")
    return samples.astype(np.uint16), bits if 8 < bits < _DEPTH_MAX else None


def _opaque(image: Any) -> Any:
    """The picture without its alpha channel, which must not hide anything."""
    image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
    if image.getchannel("A").getextrema()[0] < 255:
        raise BadInput("has transparent parts, which remac does not code: flatten it onto a background first")
    return image.getchannel("L") if image.mode == "LA" else image.convert("RGB")


# ---- writing

def save_picture(picture: Picture, path: Path | str, notes: Mapping[str, str] | None = None) -> None:
    """Write PNG (8 or 16 bit), PGM or PPM, by the suffix; whole or not at all. Deep samples keep their values. Raises BadInput, OSError.

    `notes` say how it was made: text of the PNG, or comments of the PGM and PPM. A PNG gets one with the depth where its samples do not say it.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".png":
        depth = {DEPTH_NOTE: str(picture.depth)} if 8 < picture.depth < _DEPTH_MAX else {}
        content = png_bytes(picture.samples, {**(notes or {}), **depth})
    elif suffix == (".pgm" if picture.grey else ".ppm"):
        rows, columns = picture.samples.shape[:2]
        comments = "".join(f"# {key}: {' '.join(value.split())}\n" for key, value in (notes or {}).items())
        header = f"P{5 if picture.grey else 6}\n{comments}{columns} {rows}\n{(1 << picture.depth) - 1}\n".encode("latin-1", "replace")
        content = header + picture.samples.astype(picture.samples.dtype.newbyteorder(">"), copy=False).tobytes()
    else:
        kinds = ".png or .pgm (the picture is grey)" if picture.grey else ".png or .ppm (the picture is in colour)"
        raise BadInput(f"{path}: cannot write {suffix or 'a name without suffix'}: name a {kinds} file")
    write_atomically(path, content)
