"""The blocks of figures in the documents: each a function from the results to Markdown, named as in `<!-- figures: NAME -->`."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from benchmarks import enhance_blocks, exactness_blocks, ground_blocks, speed_blocks, stage_blocks
from benchmarks.rd import PEER_TITLES, SET_TITLES
from benchmarks.rd_blocks import (
    OURS,
    adaptation,
    bands,
    complete,
    curve,
    float_gap,
    images,
    limits,
    measured_sets,
    mosaics,
    pairs,
    plot,
    rate_distortion,
    rate_ranges,
    references,
)
from benchmarks.sources import MISSING, SMALL, NotMeasuredError, Sources, earlier, mebibytes, number, percent, share, table
from benchmarks.summary import ANCHOR_QUALITIES
from remac_runtime.bench.cost import STAGES

Block = Callable[[Sources], str]
OUTCOMES = {"complete": "whole picture, nothing lost", "accepted": "decoded (the damage was given a valid CRC)", "losses": "decoded, losses reported"}
WEIGHT_FILES = {
    "network.rmn": "the integer network with its CDF tables: the rover side, and what the codec hash is of",
    "bank.rmb": "the reference bank, integers",
    "codec.safetensors.xz": "the ground decoder, and the scales that make the network trainable again",
    "decoder-deep.safetensors.xz": "the deep ground decoder, but for the trunk that both have",
    "decoder-refined.safetensors.xz": "what the refined ground decoder adds to the deep one",
    "mosaic_filters.json": "what ground decoders add to the samples of mosaics",
}


# ---- the head of the README

def _each_line(sources: Sources, *lines: Block) -> Iterator[str]:
    for line in lines:
        try:
            yield f"- {line(sources)}"
        except NotMeasuredError as error:
            yield f"- *Not measured yet: needs `benchmarks/results/{error}`.*"


def _headline_rate(sources: Sources) -> str:
    parts = []
    for name, entry in measured_sets(sources).items():
        rivals = {peer: entry["codecs"][peer]["bd_rate_mean"] for peer in PEER_TITLES if complete(entry, peer)}
        best = min((rate, peer) for peer, rate in rivals.items() if rate is not None)
        parts.append(f"**{percent(entry['codecs'][OURS]['bd_rate_mean'])}** on {entry['images']} pictures ({SET_TITLES[name]}; "
                     f"the best classical codec: {PEER_TITLES[best[1]]}, {percent(best[0])})")
    low, high = ANCHOR_QUALITIES
    return (f"Bytes against JPEG 4:2:0 at equal PSNR, JPEG qualities {low} to {high} (the range matters, see [below](#rate-and-distortion)): "
            + ", ".join(parts) + ".")


def _headline_cost(sources: Sources) -> str:
    report = sources["encoder"]
    return (f"**{sum(_layers(report).values()) / 1000:.2f} kMAC/px** for a whole encode, {report['parameters'] / 1e6:.2f} M parameters, "
            f"{_rover_bytes(report) / 1e6:.1f} MB of files on the rover.")


def headline(sources: Sources) -> str:
    """Rate, cost and speed, a line each."""
    return "\n".join(_each_line(sources, _headline_rate, _headline_cost, speed_blocks.headline))


# ---- the worked example

def example(sources: Sources) -> str:
    """The commands with what they printed."""
    from benchmarks.example import COMMANDS
    remarks = {command.line: command.remark for command in COMMANDS}
    lines = []
    for step in sources["example"]["steps"]:
        remark = remarks.get(step["command"])
        lines += [*([f"# {remark}"] if remark else []), f"$ {step['command']}", *step["output"].splitlines(), ""]
    return "\n".join(["```text", *lines[:-1], "```"])


def pictures(sources: Sources) -> str:
    """Original, ours and JPEG side by side, and the heat map."""
    result = sources["example"]["comparison"]
    (width, height), ours, rival = result["size"], result["remac"], result["jpeg"]

    def caption(entry: Mapping[str, Any]) -> str:
        return f"{entry['bytes']:,} bytes, {8 * entry['bytes'] / (width * height):.3f} bit/pixel, {entry['psnr']:.2f} dB"
    return "\n".join([
        f"| original, 24 bit/pixel | remac, quality {ours['quality']}: {caption(ours)} | JPEG 4:2:0, quality {rival['quality']}: {caption(rival)} |",
        "|---|---|---|",
        "| ![original](docs/pictures/original.png) | ![decoded](docs/pictures/remac.png) | ![JPEG](docs/pictures/jpeg.png) |",
        "",
        "![decoded picture and bits of each block](docs/pictures/overview.webp)",
        "",
        f"*Above: a window of {result['crop'][2]}x{result['crop'][3]} pixels; bytes and PSNR are of the whole picture of {width}x{height}. "
        f"Below: the whole picture decoded, and the heat map of `remac view`: bits of each 16x16 block, from dark (0) to bright "
        f"({result['heat_top_bpp']:g} bit/pixel and more). Credit: NASA/JPL-Caltech/Cornell, compiled by Michael Smith.*"])


# ---- cost, speed, checks

def _layers(report: Mapping[str, Any]) -> dict[str, float]:
    return {layer: count for graph in report["mac_per_pixel"].values() for layer, count in graph.items()}


def _rover_bytes(report: Mapping[str, Any]) -> int:
    return sum(size for name, size in report["disk_bytes"].items() if not name.startswith("ground"))


def macs(sources: Sources, name: str = "encoder") -> str:
    """Multiply-accumulates by stage."""
    report = sources[name]
    layers = _layers(report)
    total, rest = sum(layers.values()), set(layers).difference(*STAGES.values())
    stages = [(stage, sum(layers[layer] for layer in members)) for stage, members in STAGES.items()]
    stages += [("other", sum(layers[layer] for layer in rest))] if rest else []
    rows = [(stage, f"{count / 1000:.3f}", share(count / total)) for stage, count in stages]
    (height, width), memory = report["frame"], report["memory"]
    return "\n".join([
        table(("stage of the encoder", "kMAC/px", "share"), [*rows, ("**whole encode**", f"**{total / 1000:.3f}**", "100 %")]), "",
        f"Counted from the exported graphs at {width}x{height}. {report['parameters'] / 1e6:.2f} M parameters; {_rover_bytes(report) / 1e6:.2f} MB "
        f"of files on the rover, {sum(report['disk_bytes'].values()) / 1e6:.2f} MB with {_ground_files(report)}. Memory for the tensors of g_a and "
        f"h_a: {mebibytes(memory['predicted_bytes'])} predicted; a whole encode with ONNX Runtime added {mebibytes(memory['added_bytes'])} to the "
        f"process, {mebibytes(memory['peak_bytes'])} at its peak."])


def _ground_files(report: Mapping[str, Any]) -> str:
    """What a model folder holds beside the files on the rover, in words."""
    names = [name.removeprefix("ground/") for name in report["disk_bytes"] if name.startswith("ground/")]
    count = sum("/" not in name for name in names)
    decoders = "the ground decoder" if count == 1 else f"the {count} ground decoders"
    return f"{decoders} and MarsQE" if len(names) > count else decoders


def checks(sources: Sources) -> str:
    """What `make encoder` checked."""
    report = sources["encoder"]
    found = Counter(check["passed"] for check in report["checks"])
    rows = [("pass" if check["passed"] else "**FAIL**", check["name"], check["detail"]) for check in report["checks"]]
    return "\n".join([f"{found[True]} of {sum(found.values())} checks of `make encoder` pass (codec `{report['codec_hash']}`).", "",
                      table(("", "check", "what was compared"), rows, left=3)])


def _outcome(name: str) -> str:
    return OUTCOMES.get(name, f"refused with one line (`{name}`)")


def corruption(sources: Sources) -> str:
    """Totals of the outcomes of damage."""
    result = sources["corruption"]
    totals: Counter[str] = Counter()
    for kind in result["kinds"].values():
        totals.update(kind["outcomes"])
    found = "; ".join(f"{count} {_outcome(name)}" for name, count in totals.most_common())
    failures = f"**{len(result['failures'])} failed**" if result["failures"] else "none crashed, hung or took memory beyond what its header claims"
    return (f"{result['count']} damaged streams in {len(result['kinds'])} ways: {failures}. Outcomes: {found}. "
            f"The slowest took {result['slowest_s']:.1f} s, the largest {mebibytes(result['largest_peak_bytes'])}.")


def corruption_kinds(sources: Sources) -> str:
    """Outcomes by kind of damage."""
    result = sources["corruption"]
    rows = [(name.replace("_", " "), "forged" if kind["forged"] else "", ", ".join(f"{count} {found}" for found, count in kind["outcomes"].items()))
            for name, kind in result["kinds"].items()]
    return "\n".join([corruption(sources), "", table(("damage", "CRCs", "outcomes"), rows, left=3)])


# ---- the model card

def training(sources: Sources, name: str = "training") -> str:
    """Stages of the training, with hours."""
    result = sources[name]
    rows = [(stage["stage"], f"`{stage['command']}`", stage["hardware"],
             f"{stage['processes']} x {stage['batch']} of {stage['patch']}x{stage['patch']}", f"{stage['steps']:,}", f"{stage['seconds'] / 3600:.2f}")
            for stage in result["stages"]]
    hours = sum(stage["seconds"] for stage in result["stages"]) / 3600
    return "\n".join([table(("stage", "command", "hardware", "patches a step", "steps", "hours"), rows, left=3), "",
                      f"{hours:.2f} hours in all. Data: {result['data'].rstrip('.')}."])


def files(sources: Sources, name: str = "encoder") -> str:
    """The files of the shipped weights."""
    report = sources[name]
    folder = sources.root / "weights" / report["profile"]
    sizes = {name: (folder / name).stat().st_size for name in WEIGHT_FILES if (folder / name).is_file()}
    rows = [(f"`{name}`", WEIGHT_FILES[name], f"{size:,}") for name, size in sizes.items()]
    return "\n".join([f"Codec hash `{report['codec_hash']}`, {report['parameters'] / 1e6:.2f} M parameters on the rover side.", "",
                      table(("file", "what", "bytes"), rows, left=2)])


def small(sources: Sources) -> str:
    """The two profiles side by side."""
    rows = []
    for codec, suffix in ((OURS, ""), (SMALL, "-s")):
        report, sets, speed = sources[f"encoder{suffix}"], sources[f"rd{suffix}"]["sets"], speed_blocks.speed_of(sources)
        timing = speed["pixels_to_bytes"].get(codec)
        rows.append((report["profile"], number(sum(_layers(report).values()) / 1000),
                     f"{report['parameters'] / 1e6:.2f} M", f"{_rover_bytes(report) / 1e6:.2f} MB",
                     *(f"{percent(entry['codecs'][codec]['bd_rate_mean'])} (to {entry['codecs'][codec]['psnr_range_mean'][1]:.1f} dB)"
                       for entry in sets.values()),
                     f"{timing['mpix_per_s']:.0f}" if timing else MISSING,
                     f"{speed['systems'][codec]['bytes']:,} at {speed['systems'][codec]['psnr']:.2f} dB" if timing else MISSING))
    heads = ("profile", "kMAC/px", "parameters", "files on the rover", *(f"BD-rate, {SET_TITLES[name]}" for name in sources["rd-s"]["sets"]),
             "MPix/s", "bytes of the picture timed")
    return "\n".join([table(heads, rows), "", f"BD-rate against {PEER_TITLES['jpeg420']}, over what both cover; in brackets the mean PSNR of the "
                      "finest quality. Speed: one thread, in the run of the table of speeds.",
                      *(["", f"*{earlier(sources, speed)}*"] if earlier(sources, speed) else [])])


def sample_points(sources: Sources) -> str:
    """The sample picture at the qualities of the encoder's report."""
    report = sources["encoder"]
    rows = [(str(point["quality"]), f"{point['num_bytes']:,}", number(point["bits_per_pixel"], 3), number(point["psnr_db"]),
             number(point["jpeg_psnr_db"])) for point in report["points"]]
    return "\n".join([f"`{report['sample']}`:", "", table(("quality", "bytes", "bit/pixel", "PSNR, dB", "JPEG of that size, dB"), rows)])


BLOCKS: Mapping[str, Block] = {
    "headline": headline, "example": example, "pictures": pictures,
    "rd": rate_distortion, "rd-plot": plot, "rd-pairs": pairs, "rd-curve": curve, "rd-images": images, "references": references, "limits": limits,
    "bands": bands, "adaptation": adaptation, "mosaics": mosaics, "float-gap": float_gap, "rd-ranges": rate_ranges,
    "macs": macs, "speed": speed_blocks.speed, "stages": stage_blocks.stages, "networks": speed_blocks.networks, "boards": speed_blocks.boards,
    "prediction-error": speed_blocks.prediction_error, "checks": checks, "corruption": corruption, "corruption-kinds": corruption_kinds,
    "verify": exactness_blocks.verify, "differential": exactness_blocks.differential, "flight": exactness_blocks.flight,
    "enhance": enhance_blocks.quality, "enhance-samples": enhance_blocks.samples, "enhance-references": enhance_blocks.references,
    "enhance-modules": enhance_blocks.modules,
    "enhance-segmentation": enhance_blocks.segmentation, "enhance-cost": enhance_blocks.cost,
    "ground": ground_blocks.decoders, "ground-qualities": ground_blocks.qualities, "ground-ablations": ground_blocks.ablations,
    "ground-fields": ground_blocks.fields, "ground-costs": ground_blocks.costs, "engines": ground_blocks.engines,
    "training": training, "files": files, "training-s": partial(training, name="training-s"), "files-s": partial(files, name="encoder-s"),
    "macs-s": partial(macs, name="encoder-s"), "small": small, "sample-points": sample_points,
}
