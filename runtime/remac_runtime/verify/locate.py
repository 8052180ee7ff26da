"""Where a runtime that gives something else parts from the reference: the first layer, channel, position and both values."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from remac_runtime import compare
from remac_runtime.backends.base import Array
from remac_runtime.model import Model
from remac_runtime.verify.engines import REFERENCE
from remac_runtime.verify.run import Item, Machine, run_worker
from remac_runtime.verify.runtimes import Runtime
from remac_runtime.verify.trace import LATENTS, SYMBOLS, Z, by_phase, first_difference, read_latents

_TRUTH = Runtime(REFERENCE, REFERENCE)
_LIMIT_S = 600.0


class Locator:
    """Traces one case in a runtime and in the reference and compares. `work` is a folder for the traces."""

    def __init__(self, model: Model, work: Path) -> None:
        self.model, self.work = model, work

    def locate(self, runtime: Runtime, engine: str, item: Item, limit_s: float) -> str:
        """One sentence, or "" where nothing more can be said."""
        self.work.mkdir(parents=True, exist_ok=True)
        if item.action == "encode":
            return self._engine_encoder(runtime, engine, item, limit_s) if runtime.engine else self._foreign_encoder(item)
        return self._decoder(runtime, engine, item, limit_s)

    def _trace(self, runtime: Runtime, engine: str, item: Item, source: Path, action: str, limit_s: float) -> tuple[dict[str, Array], str]:
        """(trace, what is to be said of it); an empty trace where there is none."""
        output = self.work / "trace.npz"
        output.unlink(missing_ok=True)
        traced = Item("trace", action, item.case, source, output)
        ended = run_worker(runtime, engine, self.model.folder, [traced], self.work, limit_s, Machine())["trace"]
        if ended.how != "done":
            return {}, f"its layers cannot be shown ({ended.detail})"
        with np.load(output) as arrays:
            trace = by_phase({name: arrays[name] for name in arrays})
        if ended.facts.get("lost"):     # what stands in the place of lost bands says nothing about the fault
            trace = {name: x for name, x in trace.items() if name != LATENTS and not name.startswith(SYMBOLS)}
        return trace, str(ended.facts.get("note", ""))

    def _wanted(self, item: Item, action: str, source: Path) -> dict[str, Array]:
        trace, _ = self._trace(_TRUTH, REFERENCE, item, source, action, _LIMIT_S)
        if "hyper_out" in trace:
            trace[Z] = trace["hyper_out"]
        return trace

    def _engine_encoder(self, runtime: Runtime, engine: str, item: Item, limit_s: float) -> str:
        found, note = self._trace(runtime, engine, item, item.input, "trace", limit_s)
        difference = first_difference(found, self._wanted(item, "trace", item.input))
        if difference:
            return f"{difference}{f' ({note})' if note else ''}"
        return note or f"every layer is the same when it is traced, so the fault is in the coding of symbols or packets{self._place_in_stream(item)}"

    def _foreign_encoder(self, item: Item) -> str:
        assert item.case.stream is not None
        found, _ = self._trace(_TRUTH, REFERENCE, item, item.output, "trace_stream", _LIMIT_S)
        difference = first_difference(found, self._wanted(item, "trace_stream", item.case.stream))
        return f"decoded by the reference: {difference}" if difference else f"the reference sees no other symbols in it{self._place_in_stream(item)}"

    def _place_in_stream(self, item: Item) -> str:
        assert item.case.stream is not None
        found, wanted = (compare.Operand(path, "bytes", np.frombuffer(path.read_bytes(), np.uint8)) for path in (item.output, item.case.stream))
        return f": {compare.difference(found, wanted)[2]}"

    def _decoder(self, runtime: Runtime, engine: str, item: Item, limit_s: float) -> str:
        assert item.case.stream is not None
        wanted = self._wanted(item, "trace_stream", item.case.stream)
        if not runtime.engine:
            return str(first_difference(read_latents(item.output, item.case, self.model.network.latents), {LATENTS: wanted[LATENTS]}) or "")
        found, note = self._trace(runtime, engine, item, item.input, "trace_stream", limit_s)
        difference = first_difference(found, wanted)
        if difference:
            return f"{difference}{f' ({note})' if note else ''}"
        return note or ("every layer is the same when it is traced" if found else "nothing of it can be decoded")
