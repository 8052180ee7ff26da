"""Energy of a piece of work, from the sensors of the board: INA3221 of a Jetson, RAPL of a PC. "not available" is an answer."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remac_runtime.bench.environment import number, read

RAPL = Path("/sys/class/powercap")
HWMON = Path("/sys/class/hwmon")
JETSON_INPUTS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "SYS_VIN_HV")       # the rail that feeds the whole module
SAMPLE_S = 0.01


@dataclass(frozen=True)
class Reading:
    """Energy over a time."""

    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        return self.joules / self.seconds


class Sensor:
    """Measures between start() and stop(), or says in `reason` why it cannot."""

    def __init__(self, rapl: Path = RAPL, hwmon: Path = HWMON) -> None:
        self._rapl = [path for path in sorted(rapl.glob("intel-rapl:[0-9]")) if number(path / "energy_uj") is not None]
        self._volts_amperes = [] if self._rapl else _module_rails(hwmon)
        self.name = "RAPL" if self._rapl else "INA3221" if self._volts_amperes else None
        self.reason = None if self.name else "no readable sensor (INA3221 of a Jetson, or RAPL, which needs root)"
        self._begin: list[float] = []
        self._since, self._sampled, self._running, self._thread = 0.0, Reading(0.0, 0.0), False, threading.Thread()

    def start(self) -> None:
        self._begin, self._since = [number(path / "energy_uj") or 0.0 for path in self._rapl], time.perf_counter()
        if self._volts_amperes:
            self._sampled, self._running = Reading(0.0, 0.0), True
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()

    def stop(self) -> Reading | None:
        """Since start(); None without a sensor."""
        seconds = time.perf_counter() - self._since
        if self._rapl:
            return Reading(sum(self._counted(path, begin) for path, begin in zip(self._rapl, self._begin, strict=True)), seconds)
        if not self._volts_amperes:
            return None
        self._running = False
        self._thread.join()
        return Reading(self._sampled.watts * seconds, seconds)

    def _counted(self, path: Path, begin: float) -> float:
        end = number(path / "energy_uj") or 0.0
        if end < begin:     # the counter wraps
            end += number(path / "max_energy_range_uj") or 0.0
        return (end - begin) / 1e6

    def _sample(self) -> None:
        last = time.perf_counter()
        while self._running:
            time.sleep(SAMPLE_S)
            now = time.perf_counter()
            watts = sum((number(volts) or 0.0) * (number(amperes) or 0.0) / 1e6 for volts, amperes in self._volts_amperes)     # mV * mA
            self._sampled = Reading(self._sampled.joules + watts * (now - last), self._sampled.seconds + now - last)
            last = now


def _module_rails(hwmon: Path) -> list[tuple[Path, Path]]:
    """Files of millivolts and milliamperes of the rail that feeds the module."""
    for chip in sorted(hwmon.glob("hwmon*")):
        if read(chip / "name") != "ina3221":
            continue
        for label in sorted(chip.glob("in[0-9]_label")):
            channel = label.name.removeprefix("in").removesuffix("_label")
            if read(label) in JETSON_INPUTS:
                return [(chip / f"in{channel}_input", chip / f"curr{channel}_input")]
    return []


def measure(work: Callable[[], object], repeats: int, idle_s: float = 1.0, sensor: Sensor | None = None) -> dict[str, Any]:
    """Joules of one `work` over `repeats`, and watts while idle before it."""
    sensor = sensor or Sensor()
    if sensor.name is None:
        return {"available": False, "reason": sensor.reason}
    sensor.start()
    time.sleep(idle_s)
    idle = sensor.stop()
    sensor.start()
    for _ in range(repeats):
        work()
    busy = sensor.stop()
    if idle is None or busy is None:
        return {"available": False, "reason": f"{sensor.name} stopped answering"}
    return {"available": True, "sensor": sensor.name, "repeats": repeats, "joules_per_encode": busy.joules / repeats, "watts": busy.watts,
            "idle_watts": idle.watts}
