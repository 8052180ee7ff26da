"""remac-runtime: encode and decode Mars pictures with an integer-only neural codec.

    import remac_runtime
    data = remac_runtime.encode(array, quality=32)      # uint8[H,W,3], uint8[H,W] or uint16[H,W]
    array = remac_runtime.decode(data)
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remac_runtime.choices import AUTOMATIC, MAX_PIXELS
from remac_runtime.errors import BadInput
from remac_runtime.format import BAND_ROWS

if TYPE_CHECKING:
    from pathlib import Path

__version__ = "0.1.0"
__all__ = ["__version__", "decode", "encode"]


def encode(array: Any, quality: int = 32, target_bytes: int | None = None, threads: int = 1, backend: str | None = None, *,
           target_psnr: float | None = None, references: bool = True, band_rows: int = BAND_ROWS, mosaic: str = AUTOMATIC,
           model: Path | str | None = None) -> bytes:
    """Encode uint8[H,W,3] (RGB), uint8[H,W] or uint16[H,W] (grey, 16 bit) into a stream.

    `target_bytes`: at most so many, of the highest quality that a bisection finds. `backend`: onnxruntime, c99, numpy or torch, by default the
    fastest that works here. `band_rows`: rows that a lost packet costs, a multiple of 64. `mosaic`: the Bayer mosaic that a picture was plainly
    interpolated from, one of choices.MOSAIC_CHOICES; "auto" looks for one. uint8[H,W] with a mosaic that is named are the samples of such a camera
    themselves; they decode to their plain interpolation. `model`: the model folder. Raises errors.RemacError.
    """
    from remac_runtime.codec import EncodeOptions, Encoder
    from remac_runtime.images import as_picture
    from remac_runtime.model import load_model

    options = EncodeOptions(quality=quality, target_bytes=target_bytes, target_psnr=target_psnr, references=references, band_rows=band_rows,
                            mosaic=mosaic)
    with Encoder(load_model(model), backend, threads) as encoder:
        return encoder.encode(as_picture(array), options)


def decode(data: bytes, threads: int = 1, backend: str | None = None, *, strict: bool = True, model: Path | str | None = None,
           decoder: str | None = None, max_pixels: int = MAX_PIXELS) -> Any:
    """Decode a stream to the array that `encode` took (lossy). With `strict` (the default here) damage raises CorruptStream, else it is concealed.

    `decoder`: NAME@VERSION or NAME of a ground decoder of the model folder, by default the newest. `max_pixels`: a larger picture raises
    UnsupportedStream, since a few bytes can ask for gigabytes. Raises errors.RemacError.
    """
    from remac_runtime.codec import Decoder
    from remac_runtime.ground import GroundDecoder
    from remac_runtime.model import load_model

    try:
        data = bytes(memoryview(data))
    except TypeError:
        raise BadInput(f"a stream is bytes, not {type(data).__name__}") from None
    loaded = load_model(model)
    with Decoder(loaded, backend, threads, GroundDecoder(loaded, threads, decoder)) as opened:
        return opened.decode(data, strict, max_pixels).picture.samples
