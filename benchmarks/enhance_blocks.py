"""The figures of MarsQE in the documents: Table III of its paper with the paper's gains beside ours, references, segmentation, cost."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.sources import MISSING, Sources, number, share, table

KINDS = {"jpeg": "JPEG", "hevc": "HEVC", "remac": "REMAC"}
TITLES = {**KINDS, "arcnn": "AR-CNN", "dncnn": "DnCNN", "marsqe-lite": "MarsQE-lite", "marsqe": "MarsQE"}
# PSNR in dB of Table III (MarsQE-lite: Table V), on the MIC test set; HEVC is BPG there.
PAPER_PSNR: Mapping[str, Mapping[str, float]] = {
    "jpeg 20": {"jpeg": 31.10, "arcnn": 32.43, "dncnn": 32.78, "marsqe": 33.36},
    "jpeg 30": {"jpeg": 32.44, "arcnn": 33.63, "dncnn": 34.02, "marsqe-lite": 34.44, "marsqe": 34.61},
    "jpeg 40": {"jpeg": 33.24, "arcnn": 34.37, "dncnn": 34.86, "marsqe": 35.43},
    "jpeg 50": {"jpeg": 33.84, "arcnn": 34.96, "dncnn": 35.52, "marsqe": 36.09},
    "hevc 27": {"hevc": 36.77, "arcnn": 37.82, "dncnn": 38.55, "marsqe": 39.03},
    "hevc 32": {"hevc": 34.36, "arcnn": 35.00, "dncnn": 35.55, "marsqe": 36.07},
    "hevc 37": {"hevc": 32.21, "arcnn": 32.66, "dncnn": 32.96, "marsqe": 33.46},
    "hevc 42": {"hevc": 30.33, "arcnn": 30.67, "dncnn": 30.80, "marsqe": 31.21},
}
# Section V-B: TMAC at 1152x1600; parameters in millions, 67.0 % below and 26.6 % above CBDNet's 4.34.
PAPER_COST = {"marsqe-lite": (0.99, 1.43), "marsqe": (1.44, 5.49)}
# Table V, MarsQE-lite: the PSNR of the three networks less that of JPEG.
PAPER_MODULES = {"fused": 34.44 - 32.44, "added": 34.35 - 32.44, "plain": 34.31 - 32.44}
MODULE_TITLES = {"fused": "as it is", "added": "a sum instead of TFM", "plain": "no TFM, no TEM, no references"}
ABLATION_TITLES = {
    "": "as it is", "no-reference": "no reference", "wrong-class": "reference of a wrong class", "one-class-map": "NLM over all classes",
    "only-sand": "sand only", "only-soil": "soil only", "only-rock": "rock only", "only-sky": "sky only",
}


def quality(sources: Sources) -> str:
    """Means over the pictures of each set by setting and method, and the least gain of a picture."""
    result = sources["enhance"]
    rows = []
    for setting, methods in result["summary"]["test"].items():
        kind, _, value = setting.partition(" ")
        paper = PAPER_PSNR.get(setting, {})
        elsewhere = result["summary"]["frames"].get(setting, {})
        for name in (name for name in TITLES if name in methods):
            values = methods[name]
            theirs = f"{paper[name] - paper[kind]:+.2f}" if name in paper and name not in KINDS else MISSING
            gains = [f"{v[key]:+.2f}" if v and name not in KINDS else MISSING for v in (values, elsewhere.get(name)) for key in ("gain", "worst")]
            rows.append((f"{KINDS[kind]} {value}", TITLES[name], number(values["psnr"]), *gains[:2], theirs, number(values["psnr_b"]),
                         number(values["ssim"], 3), number(values["ms_ssim"], 3), *gains[2:]))
    head = ("setting", "method", "PSNR, dB", "gain, dB", "least", "gain in the paper", "PSNR-B, dB", "SSIM", "MS-SSIM",
            "Perseverance: gain, dB", "least")
    crops, frames = (max((m["pictures"] for methods in result["summary"][name].values() for m in methods.values()), default=0)
                     for name in ("test", "frames"))
    return "\n".join([table(head, rows, left=2), "", "Settings: JPEG quality, HEVC QP (intra, ipratio=1), REMAC quality. LPIPS: not available (its "
                      f"backbone's weights are not at hand). Means over the {crops} test crops of Curiosity (not the pictures of the paper); in the "
                      f"last two columns over {frames} frames of Perseverance, whose cameras no network saw (some settings). Least: of the picture "
                      f"that gains least. Convolutions in {result['precision']}.", "", trained(result)])


def samples(sources: Sources) -> str:
    """Before and after on a sample."""
    result = sources["enhance-pictures"]
    rows = []
    for row in result["rows"]:
        kind, _, value = row["setting"].partition(" ")
        rows.append(f"{KINDS[kind]} {value}: {row['codec_psnr']:.2f} to {row['psnr']:.2f} dB")
    return "\n".join(["![before, after, original](pictures/enhanced.webp)", "",
                      f"*From left to right: the codec, MarsQE, the original; at 100 %. Rows: {'; '.join(rows)} (whole sample, which is softer "
                      "than a frame of a camera). Credit: NASA/JPL-Caltech/Cornell, compiled by Michael Smith.*"])


def title(run: str) -> str:
    """`arcnn-hevc`: AR-CNN for HEVC."""
    name, _, kind = run.partition("-")
    return TITLES[name] + (f" for {KINDS[kind]}" if kind else "")


def trained(result: Mapping[str, Any]) -> str:
    """How long each network was trained."""
    parts = [f"{title(name)} {record['steps']:,} steps, {record['patches']:,} patches, {record['seconds'] / 60:.0f} minutes on {record['device']}"
             for name, record in result["training"].items()]
    return "Training: " + "; ".join(parts) + " (wall clock, some of it beside other work). To go on: `python -m remac.train_marsqe " \
        "--start weights/marsqe` ([how](../weights/marsqe/README.md))."


def references(sources: Sources) -> str:
    """What the references and the class map bring to the trained network; the paper retrained its networks (Table V)."""
    methods = sources["enhance"]["summary"]["test"]["jpeg 30"]
    rows = []
    for ablation, title in ABLATION_TITLES.items():
        names = [f"{name}/{ablation}".rstrip("/") for name in ("marsqe-lite", "marsqe")]
        if all(name in methods for name in names):
            rows.append((title, *(f"{methods[name]['gain']:+.3f}" for name in names)))
    return table(("references, JPEG quality 30", "MarsQE-lite, dB", "MarsQE, dB"), rows, left=1)


def modules(sources: Sources) -> str:
    """MarsQE-lite trained anew without its modules, as in the paper's Table V (networks C and D), the same number of steps each."""
    result = sources["enhance-modules"]
    rows = [(MODULE_TITLES[name], f"{values['gain']:+.3f}", f"{PAPER_MODULES[name]:+.2f}", f"{values['steps']:,}")
            for name, values in result["networks"].items()]
    head = ("MarsQE-lite, JPEG quality 30", "gain, dB", "gain in the paper", "steps")
    return "\n".join([table(head, rows, left=1), "", f"Each trained from the start with {result['patches']:,} patches, references from the first "
                      f"step; means over {result['pictures']} test crops."])


def segmentation(sources: Sources) -> str:
    """mIoU and accuracy by class."""
    splits = sources["enhance"]["segmentation"]
    names = tuple(splits["test"]["accuracy"])
    rows = [(split, number(values["miou"], 3), share(values["pixel_accuracy"]), *(share(values["accuracy"][name]) for name in names))
            for split, values in splits.items()]
    return table(("labelled pictures of", "mIoU", "accuracy", *names), rows, left=1)


def cost(sources: Sources) -> str:
    """Multiplications and parameters beside the paper's."""
    costs = sources["enhance"]["cost"]
    rows = [(TITLES[name], number(costs[name]["tmac"]), number(paper[0]), number(costs[name]["tmac_features_kept"]),
             number(costs[name]["parameters"]), number(paper[1])) for name, paper in PAPER_COST.items()]
    head = ("1152x1600", "TMAC", "paper", "TMAC, references kept encoded", "parameters, M", "paper")
    return table(head, rows, left=1)
