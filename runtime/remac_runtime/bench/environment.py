"""Where a benchmark ran: processor, clocks, temperature, versions, commit. Whatever a system does not tell is None, never an error."""
from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from remac_runtime.model import Model
from remac_runtime.topology import GRAPHS

PACKAGES = ("numpy", "onnxruntime", "torch", "pillow")
INTERESTING_FLAGS = ("sse4_1", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "asimd", "asimddp", "i8mm", "sve", "neon")
_CPUS = Path("/sys/devices/system/cpu")
_ARM_PARTS = {"0xd03": "Cortex-A53", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76",
              "0xd0c": "Neoverse-N1", "0xd42": "Cortex-A78AE", "0x004": "NVIDIA Carmel", "0xd40": "Neoverse-V1"}


def read(path: Path | str) -> str | None:
    """The text of a small file, stripped; None where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip().strip("\0") or None
    except OSError:
        return None


def number(path: Path | str) -> float | None:
    """The same as a number."""
    try:
        return float(read(path) or "")
    except ValueError:
        return None


def processor() -> dict[str, Any]:
    """Model and flags of the first processor, and their count."""
    fields: dict[str, str] = {}
    for line in (read("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    part = fields.get("cpu part", "")
    arm = _ARM_PARTS.get(part, f"ARM part {part}") if part else None
    model = fields.get("model name") or arm or fields.get("cpu") or platform.processor() or "unknown"
    flags = set((fields.get("flags") or fields.get("features") or fields.get("isa") or "").split())
    return {"model": model, "machine": platform.machine(), "byte_order": sys.byteorder, "cores": os.cpu_count(),
            "flags": [flag for flag in INTERESTING_FLAGS if flag in flags], "device": read("/proc/device-tree/model")}


def emulation() -> str | None:
    """The emulator of another processor that runs this process, such as qemu-aarch64; None on a real one. Virtual machines are real processors."""
    name = read("/proc/self/comm") or ""       # user-mode emulators answer for cpuinfo, maps and the like, not for the name of their own process
    return name if name.startswith("qemu") else None


def power_mode() -> str | None:
    """The mode of a Jetson, as `nvpmodel -q` names it."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    try:
        answer = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next((line.split(":", 1)[1].strip() for line in answer.splitlines() if "Power Mode" in line), None)


def clock_mhz() -> float | None:
    """Of the fastest core now."""
    clocks = [number(path) for path in _CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    known = [clock / 1000 for clock in clocks if clock]
    if not known:
        lines = [line.partition(":")[2] for line in (read("/proc/cpuinfo") or "").splitlines() if line.startswith("cpu MHz")]
        known = [float(line) for line in lines if line.strip()]
    return max(known, default=None)


def state() -> dict[str, Any]:
    """What changes during a run: clock, highest temperature, load, count of throttle events."""
    temperatures = [number(path) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    throttled = [number(path) for path in _CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    return {"clock_mhz": clock_mhz(), "celsius": max((t / 1000 for t in temperatures if t), default=None),
            "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "throttle_count": int(max((count for count in throttled if count is not None), default=0))}


def versions() -> dict[str, str]:
    """Of Python, this package and those it leans on, where they are installed."""
    found = {"python": platform.python_version(), "remac-runtime": _version("remac-runtime") or "checkout"}
    return found | {name: text for name in PACKAGES if (text := _version(name))}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit() -> dict[str, Any]:
    """Of the checkout that this package runs from; None for an installed package."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        changed = subprocess.run(["git", "-C", str(here), "status", "--porcelain"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": head, "dirty": bool(changed.strip())}


def artefacts(model: Model) -> dict[str, str]:
    """First 16 hex digits of SHA-256 of the files that an encoder reads."""
    names = ("network.rmn", "bank.rmb", *(f"{graph}.onnx" for graph in GRAPHS))
    return {name: hashlib.sha256((model.folder / name).read_bytes()).hexdigest()[:16] for name in names if (model.folder / name).is_file()}


def environment() -> dict[str, Any]:
    """All that stays the same during a run."""
    from remac_runtime import native
    governor = read(_CPUS / "cpu0" / "cpufreq" / "scaling_governor")
    return {"processor": processor(), "system": platform.system(), "kernel": platform.release(), "emulated": emulation(), "governor": governor,
            "power_mode": power_mode(), "versions": versions(), "native": native.library is not None, **commit()}
