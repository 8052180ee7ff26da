"""The child process of `remac verify`: `python -m remac_runtime.verify.worker JOB.json` runs one engine on a list of items.

JOB.json: {"engine": "numpy", "model": FOLDER, "work": FOLDER, "results": FILE, "items": [ITEM, ...]}, where an ITEM is
{"id": TEXT, "action": ACTION, "input": FILE, "output": FILE, "quality": 32, "band_rows": 128, "references": true, "image_id": null,
"mosaic": "none"}:

- `encode`: a PPM or PGM to a stream
- `decode`: a stream to `latents` int32[H/16,W/16,M] and, unless a band is lost, `symbols` of the same shape, in an .npz
- `trace`: a PPM or PGM, and `trace_stream`: a stream, to the output of every layer that the engine shows, in an .npz

FILE of results gets a line of JSON for each event, so that the parent knows what was under way when a child dies: {"event": "hello", ...} with the
machine, or "unsupported" or "failed" with a reason; then for each item "start", and "done" or "error".
"""
from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from remac_runtime import native, reference
from remac_runtime.choices import PATTERNS
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.errors import RemacError
from remac_runtime.files import replacing, write_atomically
from remac_runtime.format import SIDE_MAX
from remac_runtime.images import load_picture
from remac_runtime.model import Model, load_model
from remac_runtime.verify.engines import PACKAGES, REFERENCE, Engine, UnsupportedHere, open_engine, parse
from remac_runtime.verify.trace import LATENTS, SYMBOLS, Recorder, Trace, symbols_of

Item = dict[str, Any]


class ReferenceCodec:
    """reference.py."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def _encode(self, item: Item, trace: Trace | None) -> bytes:
        picture = load_picture(item["input"])
        return reference.encode(picture.samples, picture.depth, self.model.network, self.model.bank if item["references"] else None, item["quality"],
                                band_rows=item["band_rows"], image_id=item["image_id"], trace=trace, mosaic=PATTERNS.index(item["mosaic"]))

    def encode(self, item: Item) -> Item:
        write_atomically(Path(item["output"]), self._encode(item, None))
        return {}

    def _decode(self, item: Item) -> tuple[Item, Trace]:
        data, trace = Path(item["input"]).read_bytes(), Trace()
        latents = reference.decode_latents(data, self.model.network, self.model.bank, trace)
        return {"lost": list(latents.lost)}, _with_symbols(trace, latents.y_hat, data, self.model)

    def decode(self, item: Item) -> Item:
        facts, trace = self._decode(item)
        _save(item, {name: trace[name] for name in (LATENTS, SYMBOLS) if name in trace})
        return facts

    def trace(self, item: Item) -> Item:
        trace = Trace()
        self._encode(item, trace)
        _save(item, trace)
        return {}

    def trace_stream(self, item: Item) -> Item:
        facts, trace = self._decode(item)
        _save(item, trace)
        return facts


class RuntimeCodec:
    """The shipped codec over a backend."""

    def __init__(self, model: Model, engine: Engine, work: Path) -> None:
        self.model, self.strip_rows = model, engine.number("strip_rows", 0) or None
        self.backend = open_engine(engine, model, work)
        if engine.options.get("native") == "0":
            native.library = None

    def _encode(self, item: Item, recorder: Recorder | None) -> bytes:
        options = EncodeOptions(quality=item["quality"], band_rows=item["band_rows"], references=item["references"], image_id=item["image_id"],
                                mosaic=item["mosaic"], strip_rows=None if recorder else self.strip_rows)
        with Encoder(self.model, recorder or self.backend) as encoder:
            return encoder.encode(load_picture(item["input"]), options)

    def encode(self, item: Item) -> Item:
        write_atomically(Path(item["output"]), self._encode(item, None))
        return {}

    def _decode(self, item: Item, deep: bool) -> tuple[Item, Trace]:
        data, recorder = Path(item["input"]).read_bytes(), Recorder(self.backend, deep)
        with Decoder(self.model, recorder) as decoder:
            decoded = decoder.decode(data, max_pixels=SIDE_MAX ** 2)
        return {"lost": list(decoded.report.lost_bands), "note": recorder.note}, _with_symbols(recorder.trace(), decoded.y_hat, data, self.model)

    def decode(self, item: Item) -> Item:
        facts, trace = self._decode(item, False)
        _save(item, {name: trace[name] for name in (LATENTS, SYMBOLS) if name in trace})
        return facts

    def trace(self, item: Item) -> Item:
        recorder = Recorder(self.backend, True)
        self._encode(item, recorder)
        _save(item, recorder.trace())
        return {"note": recorder.note}

    def trace_stream(self, item: Item) -> Item:
        facts, trace = self._decode(item, True)
        _save(item, trace)
        return facts


def _with_symbols(trace: Trace, y_hat: Any, data: bytes, model: Model) -> Trace:
    symbols = symbols_of(trace, y_hat, data, model.network)
    return {**trace, LATENTS: y_hat, **({} if symbols is None else {SYMBOLS: symbols})}


def _save(item: Item, arrays: Trace) -> None:
    with replacing(Path(item["output"])) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)      # type: ignore[arg-type]


def machine(engine: Engine) -> Item:
    """What runs here, for the report."""
    facts = {"machine": platform.machine(), "byte_order": sys.byteorder, "python": platform.python_version(), "numpy": np.__version__,
             "native": native.library is not None and engine.kind != REFERENCE}
    if engine.kind in PACKAGES:
        try:
            facts[engine.kind] = version(PACKAGES[engine.kind])
        except PackageNotFoundError:
            facts[engine.kind] = "unknown"
    return facts


def run(job: Item, say: Callable[..., None]) -> None:
    """All items of a job; what happens is said as it happens."""
    try:
        engine, model = parse(job["engine"]), load_model(job["model"])
        codec = ReferenceCodec(model) if engine.kind == REFERENCE else RuntimeCodec(model, engine, Path(job["work"]))
    except UnsupportedHere as error:
        return say(event="unsupported", reason=str(error))
    except (RemacError, ImportError, OSError) as error:
        return say(event="failed", reason=_line(error))
    say(event="hello", **machine(engine))
    for item in job["items"]:
        say(event="start", id=item["id"], at=time.time())
        start = time.perf_counter()
        try:
            facts = getattr(codec, item["action"])(item)
        except Exception as error:      # whatever an engine throws is an outcome of this item
            say(event="error", id=item["id"], reason=_line(error), error=type(error).__name__)
        else:
            say(event="done", id=item["id"], seconds=round(time.perf_counter() - start, 4), **facts)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, RemacError) and text else f"{type(error).__name__}: {text}"


def main(arguments: list[str]) -> int:
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    with open(job["results"], "a", encoding="utf-8", buffering=1) as report:
        run(job, lambda **facts: print(json.dumps(facts), file=report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
