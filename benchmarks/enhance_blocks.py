"""The figures of MarsQE in the documents: Table III of its paper with the paper's gains beside ours, references, segmentation, cost."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.sources import MISSING, Sources, number, share, table

TITLES = {"jpeg": "JPEG", "arcnn": "AR-CNN", "dncnn": "DnCNN", "marsqe-lite": "MarsQE-lite", "marsqe": "MarsQE"}
# PSNR in dB of Table III (MarsQE-lite: Table V), on the MIC test set.
PAPER_PSNR: Mapping[str, Mapping[str, float]] = {
    "20": {"jpeg": 31.10, "arcnn": 32.43, "dncnn": 32.78, "marsqe": 33.36},
    "30": {"jpeg": 32.44, "arcnn": 33.63, "dncnn": 34.02, "marsqe-lite": 34.44, "marsqe": 34.61},
    "40": {"jpeg": 33.24, "arcnn": 34.37, "dncnn": 34.86, "marsqe": 35.43},
    "50": {"jpeg": 33.84, "arcnn": 34.96, "dncnn": 35.52, "marsqe": 36.09},
}
# Section V-B: TMAC at 1152x1600; parameters in millions, 67.0 % below and 26.6 % above CBDNet's 4.34.
PAPER_COST = {"marsqe-lite": (0.99, 1.43), "marsqe": (1.44, 5.49)}
ABLATION_TITLES = {
    "": "as it is", "no-reference": "no reference", "wrong-class": "reference of a wrong class", "one-class-map": "NLM over all classes",
    "only-sand": "sand only", "only-soil": "soil only", "only-rock": "rock only", "only-sky": "sky only",
}


def quality(sources: Sources) -> str:
    """Means over the test crops by JPEG quality and method."""
    result = sources["enhance"]
    rows = []
    for setting, methods in result["summary"].items():
        for name in (name for name in TITLES if name in methods):
            values, paper = methods[name], PAPER_PSNR[setting]
            gain = f"{values['gain']:+.2f}" if name != "jpeg" else MISSING
            theirs = f"{paper[name] - paper['jpeg']:+.2f}" if name in paper and name != "jpeg" else MISSING
            rows.append((setting, TITLES[name], number(values["psnr"]), gain, theirs, number(values["psnr_b"]), number(values["ssim"], 3),
                         number(values["ms_ssim"], 3)))
    head = ("JPEG quality", "method", "PSNR, dB", "gain, dB", "gain in the paper", "PSNR-B, dB", "SSIM", "MS-SSIM")
    return "\n".join([table(head, rows, left=2), "", "LPIPS: not available (its backbone's weights are not at hand). HEVC: not trained. "
                      f"Means over {len(result['images'])} pictures (not the pictures of the paper); convolutions in {result['precision']}.",
                      "", trained(result)])


def trained(result: Mapping[str, Any]) -> str:
    """How long each network was trained."""
    parts = [f"{TITLES[name]} {record['steps']:,} steps, {record['patches']:,} patches, {record['seconds'] / 60:.0f} minutes on {record['device']}"
             for name, record in result["training"].items()]
    return "Training: " + "; ".join(parts) + "."


def references(sources: Sources) -> str:
    """What the references and the class map bring to the trained network; the paper retrained its networks (Table V)."""
    methods = sources["enhance"]["summary"]["30"]
    rows = []
    for ablation, title in ABLATION_TITLES.items():
        names = [f"{name}/{ablation}".rstrip("/") for name in ("marsqe-lite", "marsqe")]
        if all(name in methods for name in names):
            rows.append((title, *(f"{methods[name]['gain']:+.3f}" for name in names)))
    return table(("references, JPEG quality 30", "MarsQE-lite, dB", "MarsQE, dB"), rows, left=1)


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
