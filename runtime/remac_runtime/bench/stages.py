"""Where the time of an encode goes. The codec holds no clocks: while a StageClock is attached, the functions named in PROBES are wrapped.

Time is exclusive: what a stage spends inside another one counts there. What no probe sees is the stage `other`. Attaching costs some microseconds a
call, so the whole is always timed without.
"""
from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from remac_runtime.codec import Encoder

LOAD, PREPROCESS, ANALYSIS, SELECTION, PARAMETERS, QUANTISE, CODING, PACKETS, WRITE, OTHER = STAGES = (
    "load", "preprocess", "g_a and h_a", "selection", "hyperprior and entropy parameters", "quantise", "range coding", "packets", "write", "other")
# (module or module:class, name of the function as that module sees it, stage)
PROBES = (
    ("remac_runtime.images", "to_pixels", PREPROCESS), ("remac_runtime.analysis", "padded", PREPROCESS),
    ("remac_runtime.codec", "analyse", OTHER), ("remac_runtime.analysis", "_channel_sums", SELECTION),
    ("remac_runtime.references", "choose", SELECTION), ("remac_runtime.references", "fetch", SELECTION),
    ("remac_runtime.arithmetic", "quality_params", QUANTISE), ("remac_runtime.arithmetic", "quantise", QUANTISE),
    ("remac_runtime.codec:Encoder", "_pack_band", CODING), ("remac_runtime.packets", "pack_stream", PACKETS),
)


class StageClock:
    """Seconds by stage since it was made or reset."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._open: list[str] = []
        self._since = time.perf_counter()

    def reset(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time spent here belongs to `name`, but for what stages inside it take."""
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def wrapped(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.stage(stage):
                return function(*arguments, **named)
        return timed


@contextmanager
def attached(clock: StageClock, encoder: Encoder) -> Iterator[None]:
    """Within it the clock sees the stages of `encoder`. Raises AttributeError where the codec has lost a function of PROBES."""
    wrapped: list[tuple[Any, str, Any]] = []
    run, analyse = encoder.backend.run, encoder.backend.analyse

    def timed_run(graph: str, *inputs: Any) -> Any:
        with clock.stage(ANALYSIS if graph == "analysis" else PARAMETERS):
            return run(graph, *inputs)

    try:
        for place, name, stage in PROBES:
            module, _, inner = place.partition(":")
            owner = importlib.import_module(module)
            owner = getattr(owner, inner) if inner else owner
            original = getattr(owner, name)
            wrapped.append((owner, name, original))
            setattr(owner, name, clock.wrapped(original, stage))
        encoder.backend.run = timed_run     # type: ignore[method-assign]
        encoder.backend.analyse = clock.wrapped(analyse, ANALYSIS)     # type: ignore[method-assign]
        yield
    finally:
        encoder.backend.__dict__.pop("run", None)
        encoder.backend.__dict__.pop("analyse", None)
        for owner, name, original in wrapped:
            setattr(owner, name, original)
