"""The figures of the ground segment in the documents: decoders beside each other, what they cost, how far they look, their TensorRT engines."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.rd import SET_TITLES
from benchmarks.sources import MISSING, Sources, mebibytes, number, percent, table

STAGE_TITLES = {"latents": "bytes to latents, ", "decoder": "latents to pixels, ", "enhancer": "JPEG to enhanced pixels, "}
ENGINE_TITLES = {"onnxruntime": "ONNX Runtime", "torch": "PyTorch", "numpy": "NumPy", "c99": "C99"}
VARIANT_TITLES = {"none": "no texture reference", "wrong": "another texture reference", "narrow": "1/32 branch off", "int8": "int8"}
BASIS = "onnxruntime"
SHARES = (0.95, 0.99, 0.999)
NOT_RETRAINED = "These are ablations of the trained networks as they are, not of networks that were trained that way"


def _labels(result: Mapping[str, Any]) -> list[str]:
    """The decoders, the codec's own first."""
    return list(result["decoders"])


def _named(psnr: Mapping[str, float]) -> float:
    return psnr["named"]


def decoders(sources: Sources) -> str:
    """One row a decoder: what it brings and what it costs."""
    result = sources["ground"]
    sets, own = result["summary"], _labels(result)[0]
    heads = ["ground decoder", "kMAC/px", "parameters, M",
             *(text for name, entry in sets.items() for text in (f"{SET_TITLES[name]} ({entry['pictures']}): BD-rate", "BD-PSNR, dB")),
             "time", "peak memory"]
    rows = []
    for label in _labels(result):
        field, run = result["fields"].get(label, {}), result["costs"][f"decoder {label}"]["engines"][BASIS]
        against = [entry["decoders"][label] for entry in sets.values()]
        deltas = [text for found in against for text in (percent(found.get("bd_rate")), _signed(found.get("bd_psnr")))]
        rows.append((label, number(field.get("kmac_per_pixel"), 1), number(field.get("parameters")), *deltas, f"{run['median_s']:.2f} s",
                     mebibytes(run["peak_bytes"])))
    return "\n".join([table(heads, rows), "", f"The same streams for each; BD-rate and BD-PSNR against {own}: real file sizes, PSNR over RGB, "
                      f"per picture, then averaged. Time and memory: 1600x1152 from latents to pixels, {ENGINE_TITLES[BASIS]}, "
                      f"{result['threads']} thread."])


def _signed(value: float | None, digits: int = 2) -> str:
    return MISSING if value is None else f"{value:+.{digits}f}"


def qualities(sources: Sources) -> str:
    """PSNR of the codec's own decoder by quality, and what the others gain."""
    result = sources["ground"]
    own, *others = _labels(result)
    heads, columns = ["quality"], []
    for name, entry in result["summary"].items():
        heads += [f"{SET_TITLES[name]}: bit/pixel", f"{own}, dB", *(f"{label}, dB (least to largest)" for label in others)]
        columns.append([entry["bits_per_pixel"], entry["decoders"]])
    rows = []
    for quality in columns[0][0] if columns else ():
        cells = [quality]
        for bits, found in columns:
            cells += [number(bits[quality], 3), number(_named(found[own]["psnr"][quality]))]
            cells += ["{:+.2f} ({:+.2f} to {:+.2f})".format(*found[label]["gain"][quality]) for label in others]
        rows.append(cells)
    return table(heads, rows)


def ablations(sources: Sources) -> str:
    """PSNR lost or won with other references and a smaller field, by decoder and quality."""
    result = sources["ground"]
    rows, pictures = [], 0
    for entry in result["summary"].values():
        for label, found in entry["decoders"].items():
            ablated = {quality: psnr for quality, psnr in found["psnr"].items() if len(psnr) > 1}
            pictures = max(pictures, entry["pictures"] if ablated else 0)
            rows += [(label, quality, number(_named(psnr)), *(_signed(psnr[variant] - _named(psnr), 3) for variant in VARIANT_TITLES))
                     for quality, psnr in ablated.items()]
    return "\n".join([table(("ground decoder", "quality", "as it is, dB", *VARIANT_TITLES.values()), rows, left=2), "",
                      f"Means over {pictures} test crops; differences in dB. Another reference: an entry of the bank that was drawn at random. "
                      f"{NOT_RETRAINED}: what a network loses with a part switched off is more than that part would bring to one that never had it. "
                      "Int8: convolutions as `--precision int8` builds them, in ONNX Runtime."])


def fields(sources: Sources) -> str:
    """How far decoders look."""
    result = sources["ground"]["fields"]
    first = next(iter(result.values()))
    sides = list(first["loss_from_window"])[:-1]
    heads = ("ground decoder", "field, pixels", "1/32 branch off", *(f"{100 * share:g} % from within" for share in SHARES),
             *(f"loss from {side}x{side}" for side in sides))
    rows = [(label, f"{field['theoretical']}", f"{field['theoretical_narrow']}", *(_side(field["share_within"], share) for share in SHARES),
             *(f"{field['loss_from_window'][side]:.2f} dB" for side in sides)) for label, field in result.items()]
    return "\n".join([table(heads, rows), "", _method(first["measured"], list(first["loss_from_window"])[-1])])


def _side(shares: Mapping[str, float], wanted: float) -> str:
    """The smallest square that holds a share."""
    return next((side for side, share in shares.items() if share >= wanted), MISSING)


def _method(measured: Mapping[str, Any], largest: str) -> str:
    return ("Sides of squares in pixels. Field: what a pixel can depend on. From within: each latent is disturbed in proportion to the spread of its "
            f"channel, and this square holds so much of what moves a pixel (gradients at {measured['points']} pixels of "
            f"{len(measured['pictures'])} test crops, quality {measured['quality']}). Loss: 32x32 pixels decoded from the square around them alone, "
            f"PSNR against {largest}x{largest} ({measured['patches']} places).")


def costs(sources: Sources) -> str:
    """Time and memory of every network and engine."""
    result = sources["ground"]
    rows = []
    for key, cost in result["costs"].items():
        stage, _, label = key.partition(" ")
        rows += [(f"{STAGE_TITLES[stage]}{label}", ENGINE_TITLES.get(engine, engine), f"{run['median_s']:.2f} s", mebibytes(run["peak_bytes"]),
                  mebibytes(run["added_bytes"])) for engine, run in cost["engines"].items()]
    environment = result["environment"]
    versions = ", ".join(f"{name} {environment['versions'][name]}" for name in ("onnxruntime", "torch", "numpy") if name in environment["versions"])
    rounds = max((len(run["samples"]) for cost in result["costs"].values() for run in cost["engines"].values()), default=0)
    return "\n".join([table(("1600x1152", "engine", "median", "peak of the process", "added by the picture"), rows, left=2), "",
                      f"{result['threads']} thread, {environment['processor']['model']}, {versions}; {rounds} rounds, each run in a new process, "
                      "after a warm-up. TensorRT was not timed: that needs an NVIDIA GPU.", *_warnings(result)])


def _warnings(result: Mapping[str, Any]) -> Iterator[str]:
    """What the runs were warned of. Files of before knew only the load, once for all runs."""
    samples = [sample for cost in result["costs"].values() for run in cost["engines"].values() for sample in run["samples"]]
    warned = [sample for sample in samples if sample.get("warnings")]
    details = {warning["warning"]: warning["detail"] for sample in warned for warning in sample["warnings"]}      # the last of each stands for all
    load = result["environment"].get("load")
    if details:
        texts = "; ".join(f"{word} ({detail})" for word, detail in details.items())
        yield from ("", f"*Warning of {len(warned)} of {len(samples)} runs: {texts}.*")
    elif load is not None and load > 1:
        yield from ("", f"*Warning of this run: other load (load average {load:.2f} before the run).*")


def engines(sources: Sources) -> str:
    """TensorRT engines: sizes and layers."""
    result = sources["engines"]["engines"]
    rows = [(f"{engine['network']}, {engine['precision']}", engine["target"], f"{engine['bytes']:,}", str(engine["layers"]),
             ", ".join(f"{count} {precision.lower()}" for precision, count in engine["convolutions"].items()),
             ", ".join(f"`{name}`" for name in engine["kept_in_fp32"]) or MISSING, _levels(engine)) for engine in result]
    heads = ("engine", "GPU", "bytes", "layers", "convolutions", "kept in fp32", "rounding costs up to")
    builders = ", ".join(sorted({engine["builder"] for engine in result}))
    return "\n".join([table(heads, rows, left=2), "", f"Built by {builders}, which needs no GPU: a proof that the graphs build, none that they run. "
                      "Rounding: grey levels between the graph in the engine's precision and the original, both in ONNX Runtime."])


def _levels(engine: Mapping[str, Any]) -> str:
    return MISSING if engine["largest_difference"] is None else f"{engine['largest_difference']:g}"
