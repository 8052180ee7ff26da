"""Memory and cold start of an encode, measured in a process of its own. Run as `python -m remac_runtime.bench.memory` by `fresh_process`."""
from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remac_runtime.errors import RemacError

if TYPE_CHECKING:
    from remac_runtime.images import Picture

_KIB = 1024
NOISE = "noise:"       # instead of the path of a picture: noise:WIDTHxHEIGHT


@dataclass(frozen=True)
class Fresh:
    """A process that loads a model, encodes once and ends: resident bytes when loaded, at the peak and afterwards; seconds from its first line on.

    `held_bytes`, what stays after the encode beyond the loaded model, is the arena of the engine and of the allocator below NumPy.
    """

    loaded_bytes: int
    peak_bytes: int
    after_bytes: int
    cold_start_s: float

    @property
    def added_bytes(self) -> int:
        return self.peak_bytes - self.loaded_bytes

    @property
    def held_bytes(self) -> int:
        return max(0, self.after_bytes - self.loaded_bytes)


def fresh_process(folder: Path, picture: str | Path, quality: int = 32, backend: str | None = None, threads: int = 1,
                  strip_rows: int | None = None, settled: bool = True) -> Fresh:
    """Encode `picture`, a path or `noise:WIDTHxHEIGHT`, once in a new process. Raises RemacError if that fails.

    `settled`: a small picture is encoded first, so that what the engine loads on its first run counts as loaded; without it the process starts cold.
    """
    job = {"model": str(folder), "picture": str(picture), "quality": quality, "backend": backend, "threads": threads, "strip_rows": strip_rows,
           "settled": settled}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.run([sys.executable, "-m", "remac_runtime.bench.memory", json.dumps(job)], env=environment, capture_output=True, text=True,
                           check=False)
    try:
        return Fresh(**json.loads(child.stdout))
    except (ValueError, TypeError):
        raise RemacError(f"the process that measures memory failed: {(child.stderr.strip().splitlines() or ['no message'])[-1]}") from None


def resident() -> tuple[int, int]:
    """Resident bytes of this process now and at its peak. Not getrusage on Linux, which counts what the parent held when it started this process."""
    status = Path("/proc/self/status")
    if status.exists():
        values = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in values:
            return int(values["VmRSS"].split()[0]) * _KIB, int(values["VmHWM"].split()[0]) * _KIB
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else _KIB)
    return peak, peak


def _forget_peak() -> None:
    """Start the peak anew, where the system allows that."""
    if os.access("/proc/self/clear_refs", os.W_OK):
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def _picture(name: str) -> Picture:
    from remac_runtime.images import Picture, load_picture
    if not name.startswith(NOISE):
        return load_picture(name)
    import numpy as np
    width, height = (int(side) for side in name.removeprefix(NOISE).split("x"))
    return Picture(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))


def child(job: dict[str, Any]) -> Fresh:
    """What the process does. Its seconds count from here on: packages are imported, but the interpreter has started."""
    start = time.perf_counter()
    from remac_runtime.codec import EncodeOptions, Encoder
    from remac_runtime.model import load_model
    options = EncodeOptions(quality=job["quality"], strip_rows=job["strip_rows"])
    with Encoder(load_model(job["model"]), job["backend"], job["threads"]) as encoder:
        if job["settled"]:
            encoder.encode(_picture(f"{NOISE}64x64"), options)
        picture = _picture(job["picture"])
        loaded, _ = resident()
        _forget_peak()
        encoder.encode(picture, options)
        seconds = time.perf_counter() - start
        after, peak = resident()
    return Fresh(loaded, peak, after, round(seconds, 4))


if __name__ == "__main__":
    print(json.dumps(asdict(child(json.loads(sys.argv[1])))))
