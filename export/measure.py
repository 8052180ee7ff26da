"""Speed, memory and quality of a built model, through the public classes of the runtime. One thread, one process; the machine should be idle."""
from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from remac_runtime.bench import memory as bench_memory
from remac_runtime.bench import stats as bench_stats
from remac_runtime.images import Picture, psnr
from remac_runtime.model import Model

_JPEG_QUALITIES = range(1, 96)       # Pillow advises against more
_SETTLING_RUNS = 2
MEMORY_ENGINE = "onnxruntime"        # the one whose memory can be predicted from the graphs


@dataclass(frozen=True)
class Latency:
    """Of one encode, in ms, by the backend `engine`."""

    median_ms: float
    min_ms: float
    max_ms: float
    runs: int
    engine: str


@dataclass(frozen=True)
class Memory:
    """Resident bytes of a process that encodes by the backend `engine`: at its peak, and how much of that the picture added to the loaded model."""

    peak_bytes: int
    added_bytes: int
    engine: str


@dataclass(frozen=True)
class Jpeg:
    """The largest JPEG within a number of bytes."""

    num_bytes: int
    quality: int
    psnr_db: float


def frame(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A picture uint8[height,width,3] of a given size: cut, or continued by its mirror images."""
    cut = pixels[:height, :width]
    return np.pad(cut, ((0, height - cut.shape[0]), (0, width - cut.shape[1]), (0, 0)), "symmetric")


def latency(model: Model, picture: Picture, runs: int) -> Latency:
    """Of `runs` encodes by the fastest backend after some that are not counted; pixels in memory to bytes in memory."""
    from remac_runtime.codec import Encoder
    with Encoder(model) as encoder:
        times = bench_stats.timed_in_turn({"encode": lambda: encoder.encode(picture)}, runs, _SETTLING_RUNS)["encode"]
        engine = encoder.backend.name
    return Latency(1000 * times.median, 1000 * min(times.samples), 1000 * max(times.samples), runs, engine)


def memory(folder: Path, height: int, width: int) -> Memory:
    """Of the graphs through ONNX Runtime, in a process of its own, on a picture of noise. Raises RemacError if it fails."""
    fresh = bench_memory.fresh_process(folder, f"{bench_memory.NOISE}{width}x{height}", backend=MEMORY_ENGINE)
    return Memory(fresh.peak_bytes, fresh.added_bytes, MEMORY_ENGINE)


def jpeg_within(picture: Picture, budget: int) -> Jpeg | None:
    """The best JPEG (Pillow, optimised, 4:2:0) of at most `budget` bytes; None if even the worst is larger."""
    from PIL import Image
    source, best = Image.fromarray(picture.samples), None
    low, high = _JPEG_QUALITIES.start, _JPEG_QUALITIES.stop - 1
    while low <= high:
        quality = (low + high) // 2
        file = io.BytesIO()
        source.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= budget:
            best, low = Jpeg(file.tell(), quality, psnr(Picture(np.asarray(Image.open(file))), picture)), quality + 1
        else:
            high = quality - 1
    return best
