"""Blocks of figures on speed, memory and boards: from speed.json and boards/figures.json to Markdown, for the documents and the report."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from benchmarks.sources import EARLIER, MISSING, NotMeasuredError, Sources, earlier, mebibytes, number, table
from remac_runtime import fit
from remac_runtime.boards import find_board, load_boards
from remac_runtime.boards_command import duration, short

OURS, ANALYSIS = "remac-m", "analysis"
SCHEMA = 2                              # of speed.json (benchmarks/latency.py)
KINDS = {"pixels_to_bytes": "pixels to bytes", "file_to_file": "file to file"}
# One of each kind of processor whose instructions were counted.
COUNTED_BOARDS = (("rad750_133", "c99"), ("visionfive2", "c99"), ("rpi3b_plus", "c99"), ("rpi5", "c99"), ("rpi3b_plus", "onnxruntime"),
                  ("rpi5", "onnxruntime"))
PROFILE, FRAME = "rover-m", (1200, 1600)          # rows and columns of the predictions that are shown


def speed_of(sources: Sources) -> Mapping[str, Any]:
    """speed.json of the present schema. Raises NotMeasuredError."""
    result: Mapping[str, Any] = sources["speed"]
    if result.get("schema") != SCHEMA:
        raise NotMeasuredError("speed.json")
    return result


def of_kind(result: Mapping[str, Any], *kinds: str) -> list[str]:
    """Systems of those kinds, in the order of the file."""
    return [name for name, system in result["systems"].items() if system["kind"] in kinds]


def ratio_text(ratio: Mapping[str, float]) -> str:
    """Median, and the quartiles where they differ visibly."""
    middle, low, high = (f"{ratio[key]:.2f}" if ratio["p50"] < 10 else f"{ratio[key]:.1f}" for key in ("p50", "q25", "q75"))
    return middle if low == high else f"{middle} ({low}-{high})"


def warned(sources: Sources, result: Mapping[str, Any]) -> Iterator[str]:
    """What must be known of a run: that it is of an earlier encoder, and its warnings."""
    sentence = earlier(sources, result)
    if sentence:
        yield f"*{sentence}*"
    for warning in result["warnings"]:
        yield f"*Warning of this run: {warning['warning']} ({warning['detail']}).*"


def _versions(result: Mapping[str, Any]) -> str:
    environment = result["environment"]
    libraries = {**environment["versions"], **environment["libraries"]}
    names = ("onnxruntime", "openjpeg", "libwebp", "libjpeg-turbo", "av1", "libjxl", "x265", "imagecodecs", "pillow")
    return ", ".join(f"{name} {libraries[name]}" for name in names if name in libraries)


def _processor(result: Mapping[str, Any]) -> str:
    processor = result["environment"]["processor"]
    return f"{processor['model']} ({', '.join(processor['flags'])})" if processor["flags"] else str(processor["model"])


def _engine(result: Mapping[str, Any]) -> str:
    """The one that our encoder chose, the last word of its title."""
    return str(result["systems"][OURS]["title"].split(", ")[-1])


def headline(sources: Sources) -> str:
    """One sentence."""
    result = speed_of(sources)
    timings, (width, height) = result["pixels_to_bytes"], result["picture"]
    rivals = [f"{timings[name]['times_ours']['p50']:.1f} times as fast as {title}" for name, title in
              (("openjpeg", "OpenJPEG"), ("webp-m4", "WebP of method 4")) if name in timings]
    return (f"**{timings[OURS]['mpix_per_s']:.0f} MPix/s** from pixels to bytes ({width}x{height}, one thread, "
            f"{result['environment']['processor']['model']}){': ' + ', '.join(rivals) + ', in the same run' if rivals else ''}."
            + (f" {earlier(sources, result)}" if earlier(sources, result) else ""))


def speed(sources: Sources) -> str:
    """Encode times beside other codecs, memory and cold start."""
    result = speed_of(sources)
    rows = []
    for name in of_kind(result, "ours", "classic"):
        system = result["systems"][name]
        cells = [f"**{system['title']}**" if system["kind"] == "ours" else system["title"], f"{system['bytes']:,}", number(system["psnr"])]
        for kind in KINDS:
            timing = result[kind][name]
            cells += [f"{timing['p50_ms']:.0f} ms", f"{timing['mpix_per_s']:.1f}", ratio_text(timing["times_ours"])]
        rows.append(cells)
    heads = ["encoder", "bytes", "PSNR, dB", *(head for kind in KINDS.values() for head in (f"{kind}: median", "MPix/s", "time / ours"))]
    (width, height), equal = result["picture"], all(result["systems"][name]["psnr"] is not None for name in of_kind(result, "classic"))
    fresh = {name: f"{mebibytes(entry['peak_bytes'])} at its peak, {mebibytes(entry['loaded_bytes'])} of that before the picture, "
                   f"{entry['cold_start_s']:.2f} s" for name, entry in result["fresh_process"].items()}
    settings = "each at its setting nearest to our PSNR" if equal else "the byte counts are not of equal quality"
    return "\n".join([
        table(heads, rows), "",
        f"{width}x{height}, quality {result['quality']}, one thread each, {settings}; medians of {result['rounds']} rounds in turn, in brackets the "
        f"quartiles of the ratios round by round (rules: `benchmarks/RULES.md`). {_processor(result)}; {_versions(result)}.", "",
        f"A fresh process that loads the model and the picture and encodes it once with {_engine(result)}: {fresh['whole']}; in strips of 128 rows: "
        f"{fresh['strips_of_128']}.", *(line for warning in warned(sources, result) for line in ("", warning))])


def networks(sources: Sources) -> str:
    """Our analysis beside float32 versions of it and encoders of published codecs."""
    result = speed_of(sources)
    names = of_kind(result, "network")
    if not names or ANALYSIS not in names:
        raise NotMeasuredError("speed.json")
    rows = []
    for name in names:
        system, timing = result["systems"][name], result["pixels_to_bytes"][name]
        mac = MISSING if system["mac_per_pixel"] is None else f"{system['mac_per_pixel'] / 1000:.1f}"
        rows.append((f"**{system['title']}**" if name == ANALYSIS else system["title"], system["settings"], mac, f"{timing['p50_ms']:,.0f} ms",
                     ratio_text(timing["times_analysis"]), ratio_text(timing["times_ours"])))
    heads = ("network", "what is timed", "kMAC/px", "median", "time / our analysis", "time / our whole encoder")
    return "\n".join([table(heads, rows, left=2), "",
                      "Same run as above. Published encoders run without their entropy coder, so their times are lower bounds, and with random "
                      "weights, which changes no time; nothing is said of their rate here. Our whole encoder includes entropy coding.",
                      *(line for warning in warned(sources, result) for line in ("", warning))])


# ---- boards

def _figures(sources: Sources) -> fit.Figures:
    return fit.from_json(sources["boards"])


def boards(sources: Sources) -> str:
    """Predictions for every board."""
    packed, rows = _figures(sources), []
    rate, (low, high) = packed.rate[PROFILE], fit.PASS_MBIT
    for board in load_boards():
        prediction = fit.predict(board, PROFILE, *FRAME, figures=packed)[0]
        gain = fit.gain(rate, prediction.seconds, *FRAME)
        energy = MISSING if prediction.joules is None else f"{short(prediction.joules)} J"
        shown = (duration(prediction.seconds), prediction.bound, energy, *(short(gain.saved_s_per_s[link]) for link in fit.LINKS_BIT_S),
                 prediction.basis)
        rows.append((f"`{board.id}`", board.name, prediction.runtime, prediction.memory,
                     *(["-"] * len(shown) if prediction.memory == "no" else shown)))
    gain = fit.gain(rate, 1.0, *FRAME)
    heads = ("board", "", "runtime", "memory", "latency", "bound by", "energy", "saved s/s at 32 kbit/s", "at 2 Mbit/s", "basis")
    return "\n".join([
        f"*Predictions* for {PROFILE}, {FRAME[1]}x{FRAME[0]}, one thread, the fastest runtime that needs no building.", "",
        table(heads, rows, left=3), "",
        f"Memory: whether the picture is encoded whole, in strips of {fit.STRIP_ROWS} rows (c99: {fit.FLIGHT_STRIP_ROWS}), or not at all. "
        f"Energy: the highest power mode over the latency. Saved s/s: seconds of link saved against JPEG of quality 85 for each second of encoding, "
        f"at equal PSNR (JPEG {rate.jpeg_bits_per_pixel:.2f} bit/pixel, ours "
        f"{100 * rate.share_of_jpeg:.0f} % of its bytes, means over {rate.pictures} pictures). A relay pass of {low} to {high} Mbit carries "
        f"{gain.pictures[low]} to {gain.pictures[high]} such pictures, {gain.jpeg_pictures[low]} to {gain.jpeg_pictures[high]} as JPEG. Basis: "
        f"whether the speed was measured with those vector instructions, counted in instructions under emulation, or assumed.", *_outdated(packed)])


def _outdated(packed: fit.Figures) -> list[str]:
    """Lines below a table where its calibrations are of an earlier encoder."""
    return ["", f"*{EARLIER.format('')}*"] if packed.outdated else []


def comparisons(packed: fit.Figures) -> list[fit.Compared]:
    """Measured runs of all boards beside their predictions."""
    names = sorted({run.board for run in packed.measured})
    return [entry for name in names for entry in fit.compare(find_board(name), PROFILE, packed)]


def prediction_error(sources: Sources) -> str:
    """Where predictions can be checked: measured runs beside them."""
    packed = _figures(sources)
    compared, rows = comparisons(packed), []
    for entry in compared:
        run = entry.run
        use = "calibrates" if run.used_to_calibrate else f"{100 * entry.error:+.0f} %"
        measured_s = duration(run.seconds) + (" (1)" if run.earlier_encoder else "")
        rows.append((f"`{run.board}`", run.runtime, str(run.threads), f"{run.width}x{run.height}",
                     measured_s, duration(entry.predicted_s), use, "yes" if run.valid else "no"))
    counted = _counted(packed)
    if not rows and not counted:
        raise NotMeasuredError("boards/*.json")
    heads = ("board", "runtime", "threads", "picture", "measured", "predicted", "error", "valid run")
    checked = [abs(entry.error) for entry in compared if not entry.run.used_to_calibrate]
    summary = f" Largest error of a prediction that can be checked: {100 * max(checked):.0f} %." if checked else ""
    measured = [table(heads, rows, left=2), "", "Each engine is calibrated with its run of one thread on the largest picture; the others check the "
                                                "prediction." + summary] if rows else []
    if any(entry.run.earlier_encoder for entry in compared):
        measured[-1] += " (1): of an earlier encoder of the same network."
    return "\n".join([*measured, *([""] if rows and counted else []), *counted])


def _counted(packed: fit.Figures) -> list[str]:
    """The assumed share of the peak beside instructions that were counted, for the flight encoder on boards of each counted kind."""
    rows, assumed = [], replace(packed, calibrations=tuple(entry for entry in packed.calibrations if entry.basis == "assumed"))
    for name, runtime in COUNTED_BOARDS:
        by_count, by_share = (fit.predict(find_board(name), PROFILE, *FRAME, runtime=runtime, figures=chosen)[0] for chosen in (packed, assumed))
        if by_count.basis == "counted":
            difference = by_share.seconds / by_count.seconds - 1
            rows.append((f"`{name}`", runtime, duration(by_count.seconds), duration(by_share.seconds), f"{100 * difference:+.0f} %"))
    if not rows:
        return []
    return [table(("board", "runtime", "by counted instructions", "by an assumed share of the peak", "difference"), rows, left=2), "",
            "Neither is measured: the first rests on instructions counted under emulation, at half of the core's issue width, the second on the "
            "theoretical peak."]
