"""The ground decoders: latents to pixels with a replaceable float network, `ground/NAME@VERSION.onnx` of the model folder.

They have versions of their own: a newer one decodes old streams better, and which one made a picture is written into it. Versions count across the
names, so that the newest is the one with the highest version; of one version it is the shortest name, as variants are called NAME-VARIANT.
"""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from remac_runtime import images, mosaic_filters
from remac_runtime.errors import BadInput, BadNetwork, WrongModel
from remac_runtime.format import LATENT_OFFSET, PHASES
from remac_runtime.model import GROUND_FOLDER, Model
from remac_runtime.mosaic_filters import PROPERTY, MosaicFilters
from remac_runtime.packets import StreamHeader

TEXTURE_PLANE = (8, 8)      # a reference of 256x256 pixels
INPUTS = ("y_hat", "quality", "texture", "share")
_FILE = re.compile(r"([a-z0-9][a-z0-9.-]*)@([0-9]{1,6})\.onnx")
_WANTED = re.compile(r"([a-z0-9][a-z0-9.-]*)(?:@([0-9]{1,6}))?")


class Session(Protocol):
    """An open float network of any engine. `properties` are the metadata of its ONNX file."""

    properties: dict[str, str]

    def run(self, inputs: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """The outputs for inputs by name, of which the network takes those it has. Raises RemacError."""


@dataclass(frozen=True)
class GroundFile:
    """A float network of the ground segment."""

    version: int
    name: str
    path: Path

    @property
    def label(self) -> str:
        """NAME@VERSION, as it is written into pictures."""
        return f"{self.name}@{self.version}"


def ground_files(folder: Path) -> list[GroundFile]:
    """The files NAME@VERSION.onnx in a folder, oldest first, of one version the shortest name last; others are left alone."""
    named = ((_FILE.fullmatch(path.name), path) for path in folder.glob("*.onnx"))
    files = [GroundFile(int(match[2]), match[1], path) for match, path in named if match]
    return sorted(files, key=lambda file: (file.version, -len(file.name), file.name))


def find_ground(folder: Path, wanted: str | None, kind: str = "ground decoder", option: str = "--decoder", maker: str = "make encoder") -> GroundFile:
    """The file NAME@VERSION in a folder, the newest of NAME, or with None the newest of all. Raises BadNetwork, BadInput (not a name).

    For the messages: what the network is, the option that names it and the command that builds it.
    """
    files = ground_files(folder)
    if not files:
        raise BadNetwork(f"{folder}: no {kind}: build it with `{maker}`, or copy it there")
    if wanted is None:
        return files[-1]
    match = _WANTED.fullmatch(wanted)
    if match is None:
        raise BadInput(f"{wanted!r} is not NAME@VERSION: name a {kind} such as {files[-1].label}")
    fitting = [file for file in files if file.name == match[1] and (match[2] is None or file.version == int(match[2]))]
    if not fitting:
        there = ", ".join(file.label for file in files)
        raise BadNetwork(f"{folder}: no {kind} {wanted}; there are {there}: choose one with {option}, or copy its .onnx file there")
    return fitting[-1]


class OnnxSession:
    """A float network in ONNX Runtime, on the processor. `level` is one of the backend's OPTIMISATION_LEVELS."""

    def __init__(self, path: Path, threads: int = 1, level: str = "all") -> None:
        try:
            import onnxruntime
        except ImportError:
            raise BadNetwork("the ground networks need onnxruntime: pip install onnxruntime") from None
        from remac_runtime.backends.onnxruntime_backend import first_line, session_options
        self.path, self._first_line = path, first_line
        try:
            self._session = onnxruntime.InferenceSession(str(path), session_options(onnxruntime, threads, level), providers=["CPUExecutionProvider"])
        except Exception as error:      # the engine's errors share no public base class
            raise BadNetwork(f"{path}: not a network that onnxruntime {onnxruntime.__version__} can run ({first_line(error)}): "
                             "build or copy it again") from None
        self.properties: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._names = [entry.name for entry in self._session.get_inputs()]

    def run(self, inputs: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        try:
            return tuple(self._session.run(None, {name: inputs[name] for name in self._names}))
        except Exception as error:      # out of memory, or a file with other inputs
            raise BadNetwork(f"{self.path}: onnxruntime failed ({self._first_line(error)})") from None


class GroundDecoder:
    """Opens the network on first use, so that a board without it can still decode latents.

    `decoder` is NAME@VERSION or NAME, by default the newest; `engine` one of choices.GROUND_ENGINES.
    """

    def __init__(self, model: Model, threads: int = 1, decoder: str | None = None, engine: str = "onnxruntime") -> None:
        self.model, self.threads, self.wanted, self.engine = model, threads, decoder, engine
        self._file: GroundFile | None = None
        self._session: Session | None = None

    @property
    def file(self) -> GroundFile:
        """The network that decodes. Raises BadNetwork, BadInput."""
        if self._file is None:
            self._file = find_ground(self.model.folder / GROUND_FOLDER, self.wanted)
        return self._file

    @property
    def filters(self) -> MosaicFilters | None:
        """The filters for mosaics that the decoder's file brings, if it does. Raises BadNetwork, WrongModel."""
        text = self._opened().properties.get(PROPERTY)
        return MosaicFilters.parsed(text, str(self.file.path)) if text is not None else None

    def _opened(self) -> Session:
        if self._session is None:
            self._session = self._open()
        return self._session

    def _open(self) -> Session:
        """The session of either engine, which must have been made for the codec of the model. Raises BadNetwork, WrongModel."""
        session = self._session_of_engine()
        made_for, codec = session.properties.get("codec_hash", "an unknown one"), self.model.network.hash.hex()
        if made_for != codec:
            raise WrongModel(f"{self.file.path}: made for codec {made_for}, the network is {codec}: export it again with export/ground_decoder.py")
        return session

    def _session_of_engine(self) -> Session:
        if self.engine == "tensorrt":
            from remac_runtime.ground_tensorrt import EngineSession
            return EngineSession.beside(self.file.path)
        return OnnxSession(self.file.path, self.threads)

    def shown(self, header: StreamHeader, y_hat: NDArray[np.int32], texture: NDArray[np.uint8] | None = None) -> images.Picture:
        """The picture of a stream's latents: what `decode` makes of them, cut to its size, and of a mosaic the plain interpolation (FORMAT 3.1)."""
        pixels = self.decode(y_hat, header.quality, texture)[:header.height, :header.width]
        if header.mosaic:
            pixels = mosaic_filters.shown(pixels, header.mosaic, header.quality, self.filters)
        return images.from_pixels(pixels, header.depth, header.grey)

    def decode(self, y_hat: NDArray[np.int32], quality: int, texture: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Latents int32[h,w,M] at a quality, with the planes uint8[4,8,8,M] of a texture reference -> uint8[16h,16w,3]."""
        share = np.array([0.0 if texture is None else 1.0], np.float32)
        planes = np.full((len(PHASES), *TEXTURE_PLANE, y_hat.shape[2]), LATENT_OFFSET, np.uint8) if texture is None else texture
        pixels = self._opened().run(dict(zip(INPUTS, (y_hat, np.array([quality], np.float32), planes, share), strict=True)))[0]
        return pixels if pixels.dtype == np.uint8 else np.rint(pixels).clip(0, 255).astype(np.uint8)      # engines give float pixels
