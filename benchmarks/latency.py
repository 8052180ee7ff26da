"""Encode times of our encoder beside other encoders, in one run and in turn: results/speed.json. Part of `python benchmarks/run.py`.

All systems encode the same picture with one thread, round after round (RULES.md). Ours runs on the backend that it chooses here, which is `remac-m`,
and on ONNX Runtime. Peers run at the setting whose PSNR on it is nearest to ours. Networks of published codecs and our own analysis in float32 are
timed without an entropy coder; beside them stands our integer analysis. `remac-s` is the smaller profile at the PSNR of the larger one.
"""
from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import networks, peers
from benchmarks.measure import Peer, as_rgb
from benchmarks.metrics import psnr_db
from benchmarks.rd_remac import probe_streams
from remac_runtime.bench import cost as bench_cost
from remac_runtime.bench import environment as bench_environment
from remac_runtime.bench import harness as bench
from remac_runtime.bench import memory as bench_memory
from remac_runtime.bench import stats as bench_stats
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.files import write_atomically
from remac_runtime.format import QUALITIES
from remac_runtime.images import Picture, load_picture
from remac_runtime.mars import DataMissing
from remac_runtime.model import Model

PICTURE = Path("frames", "test", "m2020_zcam_sol0053.png")       # 1600x1152, as the camera delivers it
SCHEMA = 2                      # with `streams`, which files of earlier encoders lack
QUALITY, ROUNDS, BUDGET_S = 32, 15, 20.0
OURS, SMALL, ANALYSIS = "remac-m", "remac-s", "analysis"
REFINEMENTS = 4                 # steps between two settings of a peer
STRIP_ROWS = 128


@dataclass(frozen=True)
class System:
    """An encoder under test. `kind`: ours, classic (a whole codec) or network (no entropy coder). `to_file` None: only pixels to bytes."""

    name: str
    title: str
    kind: str
    settings: str
    encode: Callable[[], object]
    to_file: Callable[[], object] | None = None
    num_bytes: int | None = None
    psnr_db: float | None = None
    mac_per_pixel: float | None = None


def classic_peers() -> dict[str, tuple[str, Peer]]:
    """Name: title and adapter, as they are listed."""
    return {
        "jpeg": ("JPEG, libjpeg-turbo", peers.jpeg("4:2:0")),
        "webp-m4": ("WebP, method 4", peers.webp(4)), "webp-m6": ("WebP, method 6", peers.webp(6)),
        "openjpeg": ("JPEG 2000, OpenJPEG", peers.jpeg2000()), "htj2k": ("HTJ2K, OpenJPH", peers.htj2k()),
        "avif-s8": ("AVIF, speed 8", peers.avif("4:4:4", 8)), "avif-s6": ("AVIF, speed 6", peers.avif("4:4:4", 6)),
        "jxl-e3": ("JPEG XL, effort 3", peers.jpegxl(3)), "jxl-e5": ("JPEG XL, effort 5", peers.jpegxl(5)),
        "jxl-e7": ("JPEG XL, effort 7", peers.jpegxl(7)), "hevc": ("HEVC intra, x265", peers.hevc()),
    }


def settle(peer: Peer, picture: NDArray[np.uint8], target_db: float) -> tuple[float, bytes, float]:
    """Setting, bytes and PSNR of the encode nearest to `target_db`, by bisection: over the peer's settings, then between two of them."""
    tried: dict[float, tuple[bytes, float]] = {}

    def reached(quality: float) -> float:
        if quality not in tried:
            coded = peer.encode(picture, quality)
            tried[quality] = coded, psnr_db(as_rgb(picture), peer.decode(coded))
        return tried[quality][1]

    low, high = 0, len(peer.qualities) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reached(peer.qualities[middle]) < target_db else (low, middle)
    below, above, whole = peer.qualities[low], peer.qualities[high], all(isinstance(quality, int) for quality in peer.qualities)
    reached(below), reached(above)
    for _ in range(REFINEMENTS):
        between: float = round((below + above) / 2) if whole else (below + above) / 2
        if between in tried:
            break
        below, above = (between, above) if reached(between) < target_db else (below, between)
    best = min(tried, key=lambda quality: abs(tried[quality][1] - target_db))
    return best, *tried[best]


def classic_system(name: str, title: str, peer: Peer, source: Path, target_db: float, scratch: Path) -> System:
    """A peer at the PSNR of ours."""
    picture = load_picture(source).samples
    quality, coded, reached = settle(peer, picture, target_db)

    def to_file() -> None:
        write_atomically(scratch / name, peer.encode(load_picture(source).samples, quality))
    return System(name, title, "classic", f"{peer.settings}, setting {quality:g}", lambda: peer.encode(picture, quality), to_file, len(coded),
                  round(reached, 3))


def coded(encoder: Encoder, picture: Picture, quality: int) -> tuple[bytes, float]:
    """The stream and its PSNR."""
    stream = encoder.encode(picture, EncodeOptions(quality=quality))
    with Decoder(encoder.model, encoder.backend) as decoder:
        return stream, psnr_db(picture.samples, decoder.decode(stream, strict=True).picture.samples)


def our_system(name: str, encoder: Encoder, source: Path, quality: int, scratch: Path) -> System:
    """The whole encoder on its backend, its bytes verified. Raises BenchFailed."""
    picture, wanted, engine = load_picture(source), EncodeOptions(quality=quality), encoder.backend.name
    bench.verify(bench.Subject(encoder, picture, source, wanted))
    stream, reached = coded(encoder, picture, quality)

    def to_file() -> None:
        write_atomically(scratch / name, encoder.encode(load_picture(source), wanted))
    return System(name, f"remac, {encoder.model.network.profile}, {engine}", "ours", f"quality {quality}, {engine}, integers",
                  lambda: encoder.encode(picture, wanted), to_file, len(stream), round(reached, 3))


def our_analysis(name: str, encoder: Encoder, source: Path) -> System:
    """The integer analysis alone."""
    padded = networks.padded(load_picture(source).samples)[0]
    return System(name, f"our g_a and h_a, integers, {encoder.backend.name}", "network", "uint8 x int8, no entropy coder",
                  lambda: encoder.backend.run("analysis", padded), mac_per_pixel=_analysis_mac(encoder.model, *padded.shape[:2]))


def nearest_quality(encoder: Encoder, picture: Picture, target_db: float) -> int:
    """The quality whose PSNR is nearest to `target_db`, by bisection."""
    low, high = 0, QUALITIES - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if coded(encoder, picture, middle)[1] < target_db else (low, middle)
    return min((low, high), key=lambda quality: abs(coded(encoder, picture, quality)[1] - target_db))


def _analysis_mac(model: Model, height: int, width: int) -> float:
    costs = bench_cost.layer_costs(bench_cost.shape_of(model.network, model.bank), height, width)
    return round(sum(layer.mac for layer in costs if layer.graph == "analysis"), 1)


def network_systems(model: Model, pixels: NDArray[np.uint8], folder: Path) -> list[System]:
    """Our analysis in float32, and encoders of published codecs."""
    import torch
    torch.set_num_threads(1)
    timed = [*networks.own_float_systems(model.network, pixels, folder), *networks.published_systems(list(networks.PUBLISHED), pixels, folder)]
    return [System(system.name, system.title, "network", "float32, no entropy coder" + ("" if system.name.startswith("float") else ", untrained"),
                   system.run, mac_per_pixel=round(system.mac_per_pixel, 1)) for system in timed]


# ---- the run

def ratio(ours: bench_stats.Summary, theirs: bench_stats.Summary) -> dict[str, float]:
    """Their time over ours, round by round: median and quartiles."""
    ratios = [b / a for a, b in zip(ours.samples, theirs.samples, strict=False)]
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {"p50": round(statistics.median(ratios), 3), "q25": round(quartiles[0], 3), "q75": round(quartiles[2], 3)}


def compared(timings: Mapping[str, bench_stats.Summary], pixels: int) -> dict[str, dict[str, Any]]:
    """Timings with speeds and ratios to ours, networks to our analysis."""
    result = {}
    for name, timing in timings.items():
        entry = {**timing.to_json(), "mpix_per_s": round(pixels / timing.median / 1e6, 3), "times_ours": ratio(timings[OURS], timing)}
        if ANALYSIS in timings:
            entry["times_analysis"] = ratio(timings[ANALYSIS], timing)
        result[name] = entry
    return result


def measure(model: Model, data: Path, cache: Path, quality: int = QUALITY, rounds: int = ROUNDS, say: Callable[[str], None] = print,
            only: Sequence[str] = (), small: Model | None = None) -> dict[str, Any]:
    """All of it as JSON. `only` names systems beside ours, by default all; `small`: the smaller profile. Raises BenchFailed, DataMissing."""
    source = data / PICTURE
    if not source.is_file():
        raise DataMissing(f"no picture {source}: set REMAC_DATA or --data to the folder that holds it")
    before = bench_environment.state()           # of the machine without us: settling the peers is a load of our own
    with ExitStack() as opened:
        encoder, other = (opened.enter_context(Encoder(model, backend)) for backend in (None, "onnxruntime"))
        scratch = opened.enter_context(tempfile.TemporaryDirectory())
        systems = [our_system(OURS, encoder, source, quality, Path(scratch)), our_analysis(ANALYSIS, encoder, source)]
        if encoder.backend.name != other.backend.name:
            suffix = f"-{other.backend.name}"
            systems += [our_system(OURS + suffix, other, source, quality, Path(scratch)), our_analysis(ANALYSIS + suffix, other, source)]
        target, streams = systems[0].psnr_db or 0.0, probe_streams(encoder)
        if small:
            smaller = opened.enter_context(Encoder(small))
            systems.append(our_system(SMALL, smaller, source, nearest_quality(smaller, load_picture(source), target), Path(scratch)))
        for name, (title, peer) in classic_peers().items():
            if not only or name in only:
                say(f"settling {title} at {target:.2f} dB")
                systems.append(classic_system(name, title, peer, source, target, Path(scratch)))
        pixels = load_picture(source).samples
        if not only or "networks" in only:
            say("exporting networks")
            systems += network_systems(model, pixels, cache)
        say(f"timing {len(systems)} systems, {rounds} rounds in turn")
        memory = bench_stats.timed_in_turn({system.name: system.encode for system in systems}, rounds, budget_s=BUDGET_S)
        files = bench_stats.timed_in_turn({system.name: system.to_file for system in systems if system.to_file}, rounds, budget_s=BUDGET_S)
        after = bench_environment.state()
    cautions = [*bench_stats.of_machine(before, after, None, bench_environment.emulation()), *bench_stats.of_samples(memory[OURS])]
    height, width = pixels.shape[:2]
    fresh = {name: bench_memory.fresh_process(model.folder, source, quality, encoder.backend.name, 1, rows, settled=False)
             for name, rows in (("whole", None), (f"strips_of_{STRIP_ROWS}", STRIP_ROWS))}
    timings = {"pixels_to_bytes": compared(memory, height * width), "file_to_file": compared(files, height * width)}
    return {"schema": SCHEMA, "codec_hash": model.network.hash.hex(), "streams": streams, "picture": [width, height], "quality": quality,
            "psnr": target, "rounds": rounds, "threads": 1, "valid": not any(found.caution in bench_stats.SPOILS for found in cautions),
            "warnings": [found.to_json() for found in cautions], "systems": {system.name: _described(system) for system in systems}, **timings,
            "fresh_process": {name: asdict(entry) for name, entry in fresh.items()},
            "environment": {**bench_environment.environment(), "before": before, "after": after, "libraries": peers.library_versions()}}


def _described(system: System) -> dict[str, Any]:
    return {"title": system.title, "kind": system.kind, "settings": system.settings, "bytes": system.num_bytes, "psnr": system.psnr_db,
            "mac_per_pixel": system.mac_per_pixel}
