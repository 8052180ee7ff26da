"""Speed, memory and quality of a built model, through the public classes of the runtime. One thread, one process; the machine should be idle."""
from __future__ import annotations

import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from remac_runtime.errors import RemacError
from remac_runtime.images import Picture, psnr
from remac_runtime.model import Model, load_model

_JPEG_QUALITIES = range(1, 96)       # Pillow advises against more
_SETTLING_RUNS = 2
_KIB = 1024


@dataclass(frozen=True)
class Latency:
    """Of one encode, in ms."""

    median_ms: float
    min_ms: float
    max_ms: float
    runs: int


@dataclass(frozen=True)
class Memory:
    """Resident bytes of a process that encodes: at its peak, and how much of that the picture added to the loaded model."""

    peak_bytes: int
    added_bytes: int


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
    """Of `runs` encodes after some that are not counted; pixels in memory to bytes in memory."""
    from remac_runtime.codec import Encoder
    times = []
    with Encoder(model) as encoder:
        for run in range(-_SETTLING_RUNS, runs):
            start = time.perf_counter()
            encoder.encode(picture)
            if run >= 0:
                times.append(1000 * (time.perf_counter() - start))
    return Latency(statistics.median(times), min(times), max(times), runs)


def memory(folder: Path, height: int, width: int) -> Memory:
    """Measured in a process of its own, on a picture of noise. Raises RemacError if it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.run([sys.executable, "-c", "import sys; from export.measure import memory_child; memory_child(*sys.argv[1:])",
                            str(folder), str(height), str(width)], env=environment, capture_output=True, text=True, check=False)
    try:
        peak, added = json.loads(child.stdout)
    except ValueError:
        raise RemacError(f"the process that measures memory failed: {(child.stderr.strip().splitlines() or ['no message'])[-1]}") from None
    return Memory(peak, added)


def memory_child(folder: str, height: str, width: str) -> None:
    """Encode once small, so that everything is loaded, then once large; print [peak bytes, added bytes]."""
    from remac_runtime.codec import Encoder
    noise = np.random.default_rng(1).integers(0, 256, (int(height), int(width), 3), dtype=np.uint8)
    with Encoder(load_model(folder)) as encoder:
        encoder.encode(Picture(noise[:64, :64].copy()))
        before = _peak_bytes(reset=True)
        encoder.encode(Picture(noise))
        after = _peak_bytes()
    print(json.dumps([after, after - before]))


def _peak_bytes(*, reset: bool = False) -> int:
    """Largest resident size of this process so far, or since it was last `reset`, where the system allows that."""
    if reset and os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status")
    if status.exists():        # Linux: getrusage would count what the parent process held when it started this one
        values = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(values["VmHWM"].split()[0]) * _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else _KIB)


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
