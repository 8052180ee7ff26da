"""MarsQE on the ground: a decoded picture and how coarsely it was quantised -> a picture without the traces of its compression.

A model folder holds, in ground/enhance: segmenter.onnx, dictionary.rmc (the references, as a stream of the same codec), networks NAME@VERSION.onnx,
and for each NAME@VERSION.references.onnx, which encodes the references (export/marsqe.py). One network mends all kinds of compression that its
metadata names, with the range of qualities that it was trained for.
"""
from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.backends import open_backend
from remac_runtime.codec import Decoded, Decoder, EncodeOptions, Encoder
from remac_runtime.enhance.input import Compressed, nearest_quality, of_decoded, read_jpeg, stream_tables
from remac_runtime.enhance.matching import CELL, CLASS_PIXELS, Dictionary, cut_dictionary, join_dictionary, match
from remac_runtime.enhance.tiles import TILE, tile_count, tiled
from remac_runtime.errors import BadNetwork
from remac_runtime.format import SIDE_MAX
from remac_runtime.ground import GroundDecoder, GroundFile, OnnxSession, Session, find_ground
from remac_runtime.images import Picture, from_pixels, to_pixels
from remac_runtime.model import BANK_FILE, ENHANCE_FOLDER, NETWORK_FILE, Model

JPEG, REMAC = "jpeg", "remac"           # kinds of compression
TRAINED = "trained."                    # metadata TRAINED + kind: the least and the greatest quality, with a space between
TRAINED_BEHIND = "trained_decoder"      # metadata: the ground decoder NAME@VERSION whose pictures of streams the network learned to mend
PICTURE_SUFFIXES = (".jpg", ".jpeg")     # of files that `remac ground` enhances without decoding a stream
SEGMENTER_FILE, DICTIONARY_FILE = "segmenter.onnx", "dictionary.rmc"
MAKER = "python export/marsqe.py"
Bytes = NDArray[np.uint8]
WINDOW = 1024                           # sides of the windows that the segmenter sees


@dataclass(frozen=True)
class Enhanced:
    """The picture, what made it, and what it was made with: pixels uint8[H,W,3] as coded, classes uint8[H/8,W/8] and references int64[H/128,W/128] of
    the padded picture."""

    picture: Picture
    notes: dict[str, str]
    pixels: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    index: NDArray[np.int64]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _References:
    """The dictionary as the network needs it for one set of tables: compressed patches uint8[24,128,128,3], features by input name."""

    compressed: NDArray[np.uint8]
    features: dict[str, NDArray[np.float32]]


class Enhancer:
    """Enhances JPEG pictures and decoded streams. Networks are opened when first used; references are kept for the last tables.

    `enhancer` is NAME@VERSION or NAME, by default the newest; `tile` bounds memory; `watch` may be set to
    what is called after each tile with the tiles done and in all.
    """

    def __init__(self, model: Model, enhancer: str | None = None, *, threads: int = 1, engine: str = "onnxruntime", backend: str | None = None,
                 tile: int = TILE) -> None:
        self.model, self.threads, self.engine, self.backend, self.tile = model, threads, engine, backend, tile
        self.folder = model.folder / ENHANCE_FOLDER
        self.file: GroundFile = find_ground(self.folder, enhancer, "enhancement network", "--enhancer", MAKER)
        self.watch: Callable[[int, int], None] = lambda done, total: None
        self._sessions: dict[Path, Session] = {}
        self._dictionary: Dictionary | None = None
        self._last: tuple[bytes, _References] | None = None

    @property
    def behind(self) -> str | None:
        """The ground decoder NAME@VERSION whose pictures of streams the network is for, None where it names none. Raises BadNetwork."""
        return self._properties().get(TRAINED_BEHIND)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that an enhanced picture depends on, beside what decoded it. Raises BadNetwork where one is missing."""
        folder = self.model.folder
        codec = (folder / NETWORK_FILE, *([folder / BANK_FILE] if self.model.bank else []))     # which shows the references
        networks = (self.file.path, self._references_path, self.folder / SEGMENTER_FILE)
        return (*map(_there, (*networks, self.folder / DICTIONARY_FILE)), self._shows_dictionary().file.path, *codec)

    # ---- what goes in

    def enhance_jpeg(self, data: bytes, max_pixels: int = SIDE_MAX ** 2) -> Enhanced:
        """A JPEG file of at most `max_pixels`. Raises BadInput."""
        source = read_jpeg(data, max_pixels)
        pixels, classes, index = self._enhance(source, lambda: self._as_jpeg(source))
        return Enhanced(source.finished(pixels), self._notes, pixels, classes, index,
                        self._warnings(JPEG, nearest_quality(source.tables[0]), "quantised like JPEG quality"))

    def enhance_decoded(self, decoded: Decoded) -> Enhanced:
        """A decoded stream, at the depth of its samples."""
        header = decoded.header
        source = of_decoded(to_pixels(decoded.picture), stream_tables(header.quality), header.grey)
        pixels, classes, index = self._enhance(source, lambda: self._as_stream(decoded))
        warnings = self._warnings(REMAC, header.quality, "coded at quality")
        decoder = decoded.ground.file.label
        if self.behind not in (None, decoder):
            warnings += (f"decoded by {decoder}, {self.file.label} was trained behind {self.behind}: leave --decoder out, or expect less",)
        return Enhanced(from_pixels(pixels, header.depth, header.grey), self._notes, pixels, classes, index, warnings)

    @property
    def _notes(self) -> dict[str, str]:
        from remac_runtime import __version__
        return {"Software": f"remac {__version__}", "remac-enhancer": self.file.label}

    def _warnings(self, kind: str, quality: int, what: str) -> tuple[str, ...]:
        """The quantisation is described to the network, which also mends what it was not trained for, only less well: that is said."""
        trained = self._properties().get(TRAINED + kind, "").split()
        if len(trained) == 2 and int(trained[0]) <= quality <= int(trained[1]):
            return ()
        meant = " to ".join(trained) or "other compression"
        return (f"{what} {quality}, {self.file.label} was trained for {meant}: expect less",)

    # ---- references

    @property
    def dictionary(self) -> Dictionary:
        """The raw references, decoded on first use."""
        if self._dictionary is None:
            path = _there(self.folder / DICTIONARY_FILE)
            with Decoder(self.model, self.backend, self.threads, self._shows_dictionary()) as decoder:
                self._dictionary = cut_dictionary(to_pixels(decoder.decode(path.read_bytes(), strict=True).picture))
        return self._dictionary

    def _shows_dictionary(self) -> GroundDecoder:
        return GroundDecoder(self.model, self.threads, self._properties().get("dictionary_decoder"))

    @property
    def _references_path(self) -> Path:
        return self.file.path.with_name(f"{self.file.label}.references.onnx")

    def _as_jpeg(self, source: Compressed) -> NDArray[np.uint8]:
        """The references as a JPEG with the tables of the source shows them, each alone: its blocks lie on the grid of the cell."""
        from PIL import Image
        tables = [[int(step) for step in table] for table in source.tables.clip(1, 255)]
        coded = []
        for patch in self.dictionary.patches:
            file = io.BytesIO()
            Image.fromarray(patch).save(file, "JPEG", qtables=tables, subsampling=2)
            coded.append(np.asarray(Image.open(file).convert("RGB")))
        return np.stack(coded)

    def _as_stream(self, decoded: Decoded) -> NDArray[np.uint8]:
        """The references as the codec shows them at the quality of the stream, with the same ground decoder."""
        with open_backend(self.backend, self.model.folder, self.model.network, self.threads) as backend:
            picture = Picture(join_dictionary(self.dictionary.patches))
            data = Encoder(self.model, backend).encode(picture, EncodeOptions(decoded.header.quality))
            coded = Decoder(self.model, backend, self.threads, decoded.ground).decode(data, strict=True).picture
        return cut_dictionary(to_pixels(coded)).patches

    def _references(self, source: Compressed, compress: Callable[[], Bytes]) -> _References:
        key = source.tables.tobytes()
        if self._last is None or self._last[0] != key:
            compressed = compress()
            session = self._session(self._references_path)
            features: dict[str, NDArray[np.float32]] = {}
            for letter, patches in (("c", compressed), ("r", self.dictionary.patches)):
                inputs = {"patches": np.ascontiguousarray(patches.transpose(0, 3, 1, 2), np.float32), "tables": source.tables[None]}
                features |= {f"{letter}{level}": x for level, x in enumerate(session.run(inputs), 1)}
            self._last = key, _References(compressed, features)
        return self._last[1]

    # ---- the picture

    def _enhance(self, source: Compressed, compress: Callable[[], Bytes]) -> tuple[Bytes, Bytes, NDArray[np.int64]]:
        """Pixels uint8[H,W,3], classes and references of the cells."""
        height, width = source.pixels.shape[:2]
        references = self._references(source, compress)
        edges = ((0, -height % CELL), (0, -width % CELL))
        padded = np.pad(source.pixels, (*edges, (0, 0)), "edge")
        trust = np.pad(source.trust(), edges)
        classes = self._classes(padded)
        index = match(padded, classes, references.compressed)
        session = self._session(self.file.path)
        tiles, done = tile_count(len(padded), padded.shape[1], self.tile), count(1)

        def run(rows: slice, columns: slice) -> NDArray[np.float32]:
            cells = index[_part(rows, CELL), _part(columns, CELL)].reshape(-1)
            inputs: dict[str, NDArray[Any]] = {
                "picture": planes(padded[rows, columns]), "tables": source.tables[None], "trust": trust[None, None, rows, columns],
                "classes": classes[None, _part(rows, CLASS_PIXELS), _part(columns, CLASS_PIXELS)].astype(np.int64), **references.features,
                "index": cells, "share": np.ones(len(cells), np.float32)}
            result: NDArray[np.float32] = session.run(inputs)[0][0].transpose(1, 2, 0)
            self.watch(next(done), tiles)
            return result

        pixels = np.empty((height, width, 3), np.uint8)
        for first, strip in tiled(len(padded), padded.shape[1], run, self.tile):
            part = pixels[first:first + len(strip)]
            part[:] = np.rint(strip[:len(part), :width]).clip(0, 255)
        return pixels, classes, index

    def _classes(self, padded: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classes uint8[H/8,W/8] of pixels whose sides are multiples of 128, window by window."""
        session = self._session(self.folder / SEGMENTER_FILE)
        rows = []
        for top in range(0, padded.shape[0], WINDOW):
            windows = (padded[top:top + WINDOW, left:left + WINDOW] for left in range(0, padded.shape[1], WINDOW))
            rows.append(np.concatenate([session.run({"picture": planes(window)})[0][0].argmax(0).astype(np.uint8) for window in windows], 1))
        return np.concatenate(rows)

    # ---- engines

    def _session(self, path: Path) -> Session:
        if path not in self._sessions:
            _there(path)
            if self.engine == "tensorrt":
                from remac_runtime.ground_tensorrt import EngineSession
                self._sessions[path] = EngineSession.beside(path)
            else:
                self._sessions[path] = OnnxSession(path, self.threads)
        return self._sessions[path]

    def _properties(self) -> dict[str, str]:
        return self._session(self.file.path).properties


def _there(path: Path) -> Path:
    """The path. Raises BadNetwork where there is no file."""
    if not path.exists():
        raise BadNetwork(f"{path}: missing: build it with `{MAKER}`")
    return path


def planes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8[h,w,3] -> float32[1,3,h,w]."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)


def _part(pixels: slice, size: int) -> slice:
    """The entries of a map with one for every `size` pixels."""
    return slice(pixels.start // size, pixels.stop // size)
