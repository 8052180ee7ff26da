"""Export MarsQE: ONNX networks for `remac enhance`, and TensorRT engines of them.

FOLDER/ground/enhance gets segmenter.onnx, the dictionary of references, NAME@VERSION.onnx, NAME-lite@VERSION.onnx (without the post-enhancement),
and for both LABEL.references.onnx (opset 17), each checked against PyTorch. With --target engines are built from all.
"""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:     # run as a script: its own folder is on the path, the checkout is not
    sys.path[:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "runtime")]

import numpy as np

from export.command import reported
from export.manifest import coded_with
from export.report import CheckResult
from remac_runtime.enhance.enhancer import DICTIONARY_FILE, SEGMENTER_FILE, TRAINED, TRAINED_BEHIND
from remac_runtime.enhance.tiles import TILE
from remac_runtime.errors import BadNetwork
from remac_runtime.files import copy
from remac_runtime.model import ENHANCE_FOLDER, NETWORK_FILE
from remac_runtime.network import read_network

BOUND = 0.05                    # grey levels, before rounding, by which ONNX Runtime may differ from PyTorch
RELATIVE = 1e-4                 # of the largest value: the same for features and logits
REFERENCES = (1, 24, 24)        # least, usual and largest dictionary of an engine
CHECKED_REFERENCES = 3
CHECKED_SIZES = ((256, 128),)  # neither side is that of the traced example
TILES = ((128, 128), (1152, 1664), (TILE, TILE))       # least, usual and largest tile of an engine
EXAMPLES = """\
examples:
  python export/marsqe.py                               # build/rover-m/ground/enhance from weights/marsqe
  python export/marsqe.py --target sm89                 # and engines, on a machine with or without a GPU
  python export/marsqe.py --target orin                 # what an Orin needs to build its engines itself
"""


@dataclass(frozen=True)
class Exported:
    """A written network, its check, and for an engine: the free shapes (least, usual, largest) and inputs to measure on."""

    path: Path
    check: CheckResult
    profile: Mapping[str, Sequence[Sequence[int]]]
    feeds: Sequence[Mapping[str, np.ndarray]]


def read_index(weights: Path) -> dict[str, Any]:
    """marsqe.json of a weights folder. Raises BadNetwork."""
    from remac.marsqe import INDEX_FILE
    path = weights / INDEX_FILE
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(index["model"]["kinds"], dict):
            raise TypeError("kinds")
    except OSError as error:
        raise BadNetwork(f"{path}: cannot be read ({error.strerror}): train MarsQE first, or name its folder with --weights") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadNetwork(f"{path}: damaged ({type(error).__name__}: {error}): write it again") from None
    return index


def properties_of(index: Mapping[str, Any]) -> dict[str, str]:
    """Metadata of the networks: the qualities of each kind of compression that they were trained for, the ground decoder behind which they mend
    streams, and which one shows the dictionary."""
    behind = {TRAINED_BEHIND: index["model"]["decoder"]} if "decoder" in index["model"] else {}
    trained = {TRAINED + kind: f"{least} {greatest}" for kind, (least, greatest) in index["model"]["kinds"].items()}
    decoder = {"dictionary_decoder": index["dictionary"]["decoder"]} if "decoder" in index.get("dictionary", {}) else {}
    return {**trained, **behind, **decoder}


def export_model(model: Any, folder: Path, name: str, version: int, properties: Mapping[str, str]) -> list[Exported]:
    """The networks of one MarsQE (remac.marsqe) into `folder`: enhancement with and without post-enhancement, encoder of references."""
    import torch

    from export import to_onnx_float
    from export import to_onnx_marsqe as graphs
    from remac.marsqe import EncodeReferences, Enhance

    exported = []
    for label, post in ((f"{name}@{version}", True), (f"{name}-lite@{version}", False)):
        module = Enhance(model, post).eval()
        sample, named = graphs.example(model, 128, 256), {**properties, "ground": label}
        path = to_onnx_float.export(module, sample, graphs.ENHANCE, folder / f"{label}.onnx", named)
        cases = [[x.numpy() for x in graphs.example(model, *size, seed=seed)] for seed, size in enumerate(CHECKED_SIZES)]
        check = to_onnx_float.check_against_torch(label, module, path, graphs.ENHANCE.inputs, cases, (BOUND,))
        exported.append(Exported(path, check, _tile_profile(cases[0]), [dict(zip(graphs.ENHANCE.inputs, case, strict=True)) for case in cases]))
        encoder = EncodeReferences(model).eval()
        patches, tables = 255 * torch.rand(CHECKED_REFERENCES, 3, 128, 128, generator=torch.Generator().manual_seed(1)), torch.from_numpy(cases[0][1])
        target = folder / f"{label}.references.onnx"
        to_onnx_float.export(encoder, (patches, tables), graphs.REFERENCES, target, properties)
        feed = dict(zip(graphs.REFERENCES.inputs, (patches.numpy(), tables.numpy()), strict=True))
        check = to_onnx_float.check_against_torch(target.stem, encoder, target, tuple(feed), [list(feed.values())], _relative(encoder, feed))
        exported.append(Exported(target, check, {"patches": [(count, 3, 128, 128) for count in REFERENCES]}, [feed]))
    return exported


def _tile_profile(case: Sequence[np.ndarray]) -> dict[str, list[tuple[int, ...]]]:
    from export import to_onnx_marsqe as graphs
    from remac.marsqe import FEATURES
    profile: dict[str, list[tuple[int, ...]]] = {name: [(1, channels, *tile) for tile in TILES] for name, channels in (("picture", 3), ("trust", 1))}
    profile["classes"] = [(1, height // 8, width // 8) for height, width in TILES]
    profile |= {name: [(height * width // 128 ** 2,) for height, width in TILES] for name in ("index", "share")}
    features = dict(zip(graphs.ENHANCE.inputs, case, strict=True))
    return profile | {name: [(count, *features[name].shape[1:]) for count in REFERENCES] for name in FEATURES}


def _relative(module: Any, feed: Mapping[str, np.ndarray]) -> list[float]:
    """The bound of each output of a network whose outputs are no pixels."""
    from export.to_onnx_float import torch_outputs
    return [RELATIVE * float(np.abs(output).max()) for output in torch_outputs(module, list(feed.values()))]


def export_segmenter(segmenter: Any, path: Path) -> Exported:
    """The segmenter (remac.segmenter)."""
    import torch

    from export import to_onnx_float
    from export import to_onnx_marsqe as graphs
    picture = 255 * torch.rand(1, 3, 128, 192, generator=torch.Generator().manual_seed(2))
    to_onnx_float.export(segmenter, (picture,), graphs.SEGMENTER, path, {})
    feed = {"picture": picture.repeat(1, 1, 2, 1).numpy()}
    check = to_onnx_float.check_against_torch("segmenter", segmenter, path, tuple(feed), [list(feed.values())], _relative(segmenter, feed))
    return Exported(path, check, {"picture": [(1, 3, 64, 64), (1, 3, 1024, 1024), (1, 3, 1024, 1024)]}, [feed])


def export_all(weights: Path, folder: Path) -> list[Exported]:
    """Everything that `remac enhance` needs, from a weights folder into a model folder. Raises BadNetwork, also for references of another codec."""
    from remac.marsqe import load_marsqe
    from remac.segmenter import load_segmenter

    index, out = read_index(weights), folder / ENHANCE_FOLDER
    references, codec = weights / index["dictionary"]["file"], read_network(folder / NETWORK_FILE).hash.hex()
    if (made_with := coded_with(references)) != codec:
        raise BadNetwork(f"{references}: made with codec {made_with}, {folder} holds {codec}: run python -m remac.matching, or build the encoder")
    out.mkdir(parents=True, exist_ok=True)
    exported = [export_segmenter(load_segmenter(weights), out / SEGMENTER_FILE)]
    copy(references, out / DICTIONARY_FILE)
    model = index["model"]
    return exported + export_model(load_marsqe(weights), out, model["name"], int(model["version"]), properties_of(index))


def parser() -> argparse.ArgumentParser:
    from export.to_tensorrt import add_arguments
    result = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--weights", type=Path, default=Path("weights/marsqe"), help="weights folder (weights/marsqe)")
    result.add_argument("--out", type=Path, default=Path("build/rover-m"), metavar="FOLDER", help="model folder to write into (build/rover-m)")
    add_arguments(result)
    return result


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    from export.manifest import refresh_manifest
    from export.to_tensorrt import Work, build, destination
    if options.target:
        destination(options.target)
    exported = export_all(options.weights, options.out)
    refresh_manifest(options.out)
    for one in exported:
        print(f"{one.path}: {one.path.stat().st_size:,} bytes; {'pass' if one.check.passed else 'FAIL'}: {one.check.detail}")
    for one in exported if options.target else ():
        build(Work(one.path, one.profile, one.feeds), options.target, options.precision)
    return 0 if all(one.check.passed for one in exported) else 1


if __name__ == "__main__":
    sys.exit(main())
