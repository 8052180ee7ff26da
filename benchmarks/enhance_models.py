"""MarsQE and its baselines in PyTorch as functions from a coded picture to an enhanced one, for `benchmarks.enhance`."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from remac.marsqe import CELL, Bank, MarsQE, load_marsqe
from remac.marsqe_data import Dictionary
from remac.matching import DICTIONARY_FILE, load_dictionary, match
from remac.segmenter import CLASS_NAMES, Segmenter, cell_classes, class_map, load_segmenter
from remac.train_codec import autocast
from remac_runtime.enhance.matching import texture

Planes = NDArray[np.uint8]


def to_planes(picture: Planes) -> Tensor:
    """uint8[H,W,3] -> float[1,3,H',W'], sides padded by repetition to multiples of 128."""
    h, w = picture.shape[:2]
    padded = np.pad(picture, ((0, -h % CELL), (0, -w % CELL), (0, 0)), "edge")
    return torch.from_numpy(padded.transpose(2, 0, 1).copy())[None].float()


def to_picture(planes: Tensor, height: int, width: int) -> Planes:
    """The inverse of `to_planes`, rounded."""
    pixels: Planes = planes[0, :, :height, :width].clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
    return pixels


class Mars:
    """MarsQE, the shipped one or `model`, with the shipped segmenter and dictionary; `post`: with the post-enhancement network too."""

    def __init__(self, weights: Path, half: bool, model: MarsQE | None = None, post: bool = True) -> None:
        chosen = (model or load_marsqe(weights)).eval()
        self.model: MarsQE = chosen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.post = post
        self.segmenter: Segmenter = load_segmenter(weights)
        self.dictionary = Dictionary(load_dictionary(weights / DICTIONARY_FILE))
        self.half = half
        self._banks: dict[bytes, Bank] = {}

    def bank(self, tables: NDArray[np.float32]) -> Bank:
        """The encoded references for a set of tables."""
        key = tables.tobytes()
        if key not in self._banks:
            coded, _ = self.dictionary.compressed(tables)
            repeated = torch.from_numpy(tables)[None].expand(len(coded), -1, -1)
            sides = [torch.from_numpy(p.transpose(0, 3, 1, 2).astype(np.float32)) for p in (coded, self.dictionary.patches)]
            self._banks[key] = Bank(*(self.model.encode_references(side, repeated) for side in sides))
        return self._banks[key]

    def index(self, compressed: Planes, tables: NDArray[np.float32], kinds: NDArray[np.int64]) -> Tensor:
        """The matched reference of every cell of a padded picture, int64[P]."""
        _, descriptors = self.dictionary.compressed(tables)
        cells = [compressed[top:top + CELL, left:left + CELL] for top in range(0, compressed.shape[0], CELL)
                 for left in range(0, compressed.shape[1], CELL)]
        return torch.tensor([match(descriptors, texture(cell), int(kind)) for cell, kind in zip(cells, kinds.reshape(-1), strict=True)])

    @torch.inference_mode()
    def __call__(self, compressed: Planes, tables: NDArray[np.float32], ablation: str = "", *, bound: bool = True) -> dict[str, Planes]:
        """MarsQE-lite and MarsQE of a coded picture; `bound`: within the quantisation intervals of a JPEG's tables."""
        planes, table = to_planes(compressed), torch.from_numpy(tables)[None]
        classes = class_map(self.segmenter, planes[0])[None]
        kinds = cell_classes(classes).numpy()
        if ablation == "wrong-class":
            kinds = (kinds + 2) % len(CLASS_NAMES)
        elif ablation.startswith("only-"):
            kinds = np.full_like(kinds, CLASS_NAMES.index(ablation.removeprefix("only-")))
        elif ablation == "one-class-map":
            classes = torch.zeros_like(classes)
        padded = planes[0].byte().permute(1, 2, 0).numpy()
        index = self.index(padded, tables, kinds)
        share = torch.zeros(len(index)) if ablation == "no-reference" else None
        bank = self.bank(tables).taken(index)
        with autocast("cpu") if self.half else torch.no_grad():
            enhanced = self.model(planes, table, classes, bank, share, self.post)
        results = {"-lite": enhanced.lite} if enhanced.full is None else {"-lite": enhanced.lite, "": enhanced.full}
        if bound:
            results = {suffix: self._bound(result, planes, table, compressed.shape) for suffix, result in results.items()}
        return {f"marsqe{suffix}": to_picture(result, *compressed.shape[:2]) for suffix, result in results.items()}

    def _bound(self, enhanced: Tensor, planes: Tensor, table: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Within the quantisation intervals, where blocks are whole."""
        bound, (h, w) = self.model.constrained(enhanced, planes, table), (n - n % 8 for n in shape[:2])
        result = enhanced.clone()
        result[:, :, :h, :w] = bound[:, :, :h, :w]
        return result


def averaged(run: Path) -> nn.Module:
    """The network that a run trained."""
    from remac.train_marsqe import build
    state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    model = build(state["name"])
    model.load_state_dict(state["average"])
    return model.eval()


def baseline(run: Path, half: bool) -> Callable[[Planes], Planes]:
    """A trained baseline as a function from picture to picture."""
    model = averaged(run).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def enhance(compressed: Planes) -> Planes:
        with autocast("cpu") if half else torch.no_grad():
            return to_picture(model(to_planes(compressed)), *compressed.shape[:2])
    return enhance


def cost_of(model: MarsQE) -> dict[str, dict[str, float]]:
    """TMAC at 1152x1600 and parameters (millions), references encoded with every cell as in the paper, and with their features kept."""
    from fvcore.nn import FlopCountAnalysis

    class Whole(nn.Module):
        def __init__(self, post: bool, encode: bool) -> None:
            super().__init__()
            self.model, self.post, self.encode = model, post, encode

        def forward(self, picture: Tensor, tables: Tensor, classes: Tensor, patches: Tensor, *bank: Tensor) -> Tensor:
            repeated = tables.expand(len(patches), -1, -1)
            side = self.model.encode_references(patches, repeated) if self.encode else bank
            other = self.model.encode_references(patches + 1, repeated) if self.encode else bank
            enhanced = self.model(picture, tables, classes, Bank(side, other), None, self.post)
            return enhanced.full if self.post else enhanced.lite

    side = CELL
    patches = torch.rand(1, 3, CELL, CELL) * 255
    with torch.no_grad():
        bank = model.encode_references(patches, torch.full((1, 2, 64), 20.0))
    classes = torch.zeros(1, side // 8, side // 8, dtype=torch.int64)
    inputs = (torch.rand(1, 3, side, side) * 255, torch.full((1, 2, 64), 20.0), classes, patches, *bank)
    result = {}
    for name, post in (("marsqe-lite", False), ("marsqe", True)):
        counted = [FlopCountAnalysis(Whole(post, encode), inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
                   for encode in (True, False)]
        parameters = sum(p.numel() for part in ((model.main, model.post) if post else (model.main,)) for p in part.parameters())
        result[name] = {"tmac": counted[0] / side ** 2 * 1152 * 1600 / 1e12, "tmac_features_kept": counted[1] / side ** 2 * 1152 * 1600 / 1e12,
                        "parameters": parameters / 1e6}
    return result
