"""Samples of a benchmark: how they are taken, summed up, and what is suspicious about them (benchmarks/RULES.md)."""
from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

OUTLIER_SCORE = 5.0          # modified z-score, |x - median| / (1.4826 MAD): beyond it a sample has another cause than the rest
MAD_TO_SIGMA = 1.4826        # of a normal distribution
LEAST_MAD = 0.005            # of the median: below it the clock's steps would make outliers
SLOW_FIRST = 1.5             # first sample over the median
DRIFT = 1.08                 # median of the last third over that of the first
SHARE_OF_CPU = 0.95          # processor time over wall time of a single thread: below it somebody else ran
FREQUENCY_CHANGE = 0.05
HOT_CELSIUS = 80.0
IDLE_LOAD = 0.5              # load average before the run
FEW = 10


class Caution(Enum):
    """Everything a run can be warned of: the word in the results, and what to do about it."""

    SLOW_FIRST = "slow first run", "something was loaded or warmed up only then: raise --warmup"
    OUTLIERS = "outliers", "something else ran now and then: stop it, or raise --rounds and look at p50 and p90"
    THROTTLING = "thermal throttling", "the processor got hot or slowed down during the run: cool it, or let it rest and run again"
    FREQUENCY = "frequency change", "set a fixed clock (sudo cpupower frequency-set -g performance; on a Jetson sudo jetson_clocks)"
    OTHER_LOAD = "other load", "another program used the processor: stop it and run again"
    FEW_SAMPLES = "few samples", "p90 and p99 mean little: raise --rounds"
    EMULATED = "emulated processor", "times say nothing about a board: run on the board itself"

    @property
    def word(self) -> str:
        return str(self.value[0])

    @property
    def remedy(self) -> str:
        return str(self.value[1])


SPOILS = (Caution.THROTTLING, Caution.OTHER_LOAD, Caution.EMULATED)       # a run with one of these is not valid


@dataclass(frozen=True)
class Summary:
    """Seconds of every timed run, in the order they were taken."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def percentile(self, percent: float) -> float:
        """Nearest rank: a value that was really measured."""
        ordered = sorted(self.samples)
        return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]

    @property
    def spread(self) -> float:
        """Distance of the quartiles over the median."""
        return (self.percentile(75) - self.percentile(25)) / self.median if self.median else 0.0      # a stage that an engine does not have

    def to_json(self) -> dict[str, Any]:
        return {"p50_ms": _ms(self.median), "p90_ms": _ms(self.percentile(90)), "p99_ms": _ms(self.percentile(99)), "min_ms": _ms(min(self.samples)),
                "spread": round(self.spread, 4), "samples_ms": [_ms(sample) for sample in self.samples]}


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 4)


@dataclass(frozen=True)
class Warned:
    """A warning with what was seen."""

    caution: Caution
    detail: str

    def to_json(self) -> dict[str, str]:
        return {"warning": self.caution.word, "detail": self.detail, "remedy": self.caution.remedy}


def timed_in_turn(tasks: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1, budget_s: float = math.inf) -> dict[str, Summary]:
    """Run every task `warmup` times unmeasured, then `rounds` times in turn, so that whatever else the machine does hits all alike.

    A task that has used `budget_s` seconds gets no more rounds, but never fewer than 3.
    """
    for task in tasks.values():
        for _ in range(warmup):
            task()
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds):
        for name, task in tasks.items():
            if number >= 3 and sum(samples[name]) > budget_s:
                continue
            start = time.perf_counter()
            task()
            samples[name].append(time.perf_counter() - start)
    return {name: Summary(tuple(values)) for name, values in samples.items()}


def of_samples(summary: Summary) -> list[Warned]:
    """What the samples alone give away."""
    found, samples, median = [], summary.samples, summary.median
    if len(samples) < FEW:
        found.append(Warned(Caution.FEW_SAMPLES, f"{len(samples)} samples"))
    if len(samples) > 2 and samples[0] > SLOW_FIRST * statistics.median(samples[1:]):
        found.append(Warned(Caution.SLOW_FIRST, f"{samples[0] / median:.2f} times the median"))
    far = outliers(samples)
    if far:
        found.append(Warned(Caution.OUTLIERS, f"{len(far)} of {len(samples)} samples, the furthest {max(far) / median:.2f} times the median"))
    third = len(samples) // 3
    if third >= 3:
        drift = statistics.median(samples[-third:]) / statistics.median(samples[:third])
        if drift > DRIFT:
            found.append(Warned(Caution.THROTTLING, f"the last third of the samples took {drift:.2f} times as long as the first"))
    return found


def outliers(samples: Sequence[float]) -> list[float]:
    """Samples whose modified z-score is beyond OUTLIER_SCORE."""
    median = statistics.median(samples)
    mad = max(statistics.median(abs(sample - median) for sample in samples), LEAST_MAD * median)
    return [sample for sample in samples if abs(sample - median) > OUTLIER_SCORE * MAD_TO_SIGMA * mad]


def of_machine(before: Mapping[str, Any], after: Mapping[str, Any], cpu_share: float | None, emulated: str | None) -> list[Warned]:
    """What the machine gives away: its state before and after (`environment.state`), and processor time over wall time of the timed runs."""
    found = []
    if emulated:
        found.append(Warned(Caution.EMULATED, emulated))
    load = before.get("load")
    if load is not None and load > IDLE_LOAD:
        found.append(Warned(Caution.OTHER_LOAD, f"load average {load:.2f} before the run"))
    if cpu_share is not None and cpu_share < SHARE_OF_CPU:
        found.append(Warned(Caution.OTHER_LOAD, f"the run got {100 * cpu_share:.0f} % of a processor"))
    first, last = before.get("clock_mhz"), after.get("clock_mhz")
    if first and last and abs(last - first) > FREQUENCY_CHANGE * first:
        found.append(Warned(Caution.FREQUENCY, f"{first:.0f} MHz before, {last:.0f} MHz after"))
    hot, throttled = after.get("celsius"), (after.get("throttle_count") or 0) - (before.get("throttle_count") or 0)
    if throttled > 0 or (hot is not None and hot >= HOT_CELSIUS):
        found.append(Warned(Caution.THROTTLING, f"{throttled} throttle events, {hot if hot is not None else '?'} degrees Celsius after the run"))
    return found
