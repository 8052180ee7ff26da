"""Bytes to latents (normative) and on to a picture (ground side)."""
from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from remac_runtime import arithmetic, concealment, images, packets, rans
from remac_runtime.adaptation import Adaptation
from remac_runtime.backends import Backend, open_backend
from remac_runtime.choices import MAX_PIXELS
from remac_runtime.entropy_path import EntropyPath, band_slices, interleave
from remac_runtime.errors import CorruptStream, UnsupportedStream, WrongModel
from remac_runtime.format import LATENT_OFFSET, NO_REFERENCE, PAD_MULTIPLE
from remac_runtime.ground import GroundDecoder
from remac_runtime.model import Model


@dataclass(frozen=True)
class LossReport:
    """What damage cost: the numbers of the lost bands, of how many, and the bytes that belonged to no valid packet."""

    lost_bands: tuple[int, ...]
    bands: int
    skipped_bytes: int

    @property
    def complete(self) -> bool:
        return not self.lost_bands


@dataclass(frozen=True)
class Decoded:
    """A decoded stream. `y_hat` int32[H/16,W/16,M] is normative; `bits` float32[H/16,W/16] estimates what each latent position cost."""

    header: packets.StreamHeader
    y_hat: NDArray[np.int32]
    bits: NDArray[np.float32]
    report: LossReport
    ground: GroundDecoder
    texture: NDArray[np.uint8] | None

    @property
    def notes(self) -> dict[str, str]:
        """What made the picture, for the text of its file."""
        from remac_runtime import __version__
        return {"Software": f"remac {__version__}", "remac-decoder": self.ground.file.label, "remac-codec": self.header.codec_tag.hex()}

    def with_texture(self, planes: NDArray[np.uint8] | None) -> Decoded:
        """The same latents, to be decoded with another texture reference, `Decoder.texture(entry)`, or with none: for evaluations."""
        return replace(self, texture=planes)

    @functools.cached_property
    def picture(self) -> images.Picture:
        """The picture, decoded by the ground decoder on first use. Raises CorruptStream where no band is intact: a header costs little."""
        if len(self.report.lost_bands) == self.report.bands:
            raise CorruptStream(f"no band of {self.report.bands} is intact, so there is no picture to decode: receive the stream again")
        return self.ground.shown(self.header, self.y_hat, self.texture)


class Decoder:
    """Decodes streams of one model. Use as a context manager, or call close(). `backend` may be one that is open already (it is then left open).

    `ground` chooses how latents become pixels, by default the newest decoder of the model folder in ONNX Runtime.
    """

    def __init__(self, model: Model, backend: Backend | str | None = None, threads: int = 1, ground: GroundDecoder | None = None) -> None:
        self.model = model
        self.owned = not isinstance(backend, Backend)
        self.backend = backend if isinstance(backend, Backend) else open_backend(backend, model.folder, model.network, threads)
        self.combined = rans.combine(model.network)
        self.ground = ground or GroundDecoder(model, threads)

    def close(self) -> None:
        if self.owned:
            self.backend.close()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def decode(self, data: bytes, strict: bool = False, max_pixels: int = MAX_PIXELS) -> Decoded:
        """Decode a stream, whole or damaged. Raises CorruptStream (nothing left, or any loss when `strict`), UnsupportedStream, WrongModel."""
        scanned = packets.scan(data, max_pixels)
        header = scanned.header
        path = self._path(header)
        bands = _BandDecoding(self, header, scanned.bands, path)
        bands.run()
        lost = tuple(sorted(set(range(len(bands.slices))) - set(bands.latents)))
        if strict and lost:
            raise CorruptStream(f"bands {', '.join(map(str, lost))} of {len(bands.slices)} are lost: decode without `strict` to conceal them")
        y_hat, bits = bands.assembled()
        if lost:
            rows = [(4 * bands.slices[band].start, 4 * bands.slices[band].stop) for band in lost]
            y_hat = concealment.conceal(y_hat, rows)
        report = LossReport(lost, len(bands.slices), scanned.skipped_bytes)
        return Decoded(header, y_hat, bits, report, self.ground, self.texture(header.texture if header.reference_kind == 1 else NO_REFERENCE))

    def texture(self, entry: int) -> NDArray[np.uint8] | None:
        """The planes uint8[4,8,8,M] of a bank entry, None where there is no such entry: a stream may name one beyond the bank (FORMAT 2.3)."""
        bank = self.model.bank
        return bank.planes[entry] if bank and 0 <= entry < len(bank) else None

    def _path(self, header: packets.StreamHeader) -> EntropyPath:
        network, bank = self.model.network, self.model.bank
        if header.reference_kind == packets.REFERENCE_EARLIER:      # whatever its codec: no model of this version helps
            raise UnsupportedStream("the stream refers to an earlier image, which this version cannot decode: use a newer remac")
        if header.codec_tag != network.hash[:4]:
            raise WrongModel(f"the stream was made with codec {header.codec_hash.hex()}, the model in {self.model.folder} is "
                             f"{network.hash.hex()}: name the right model folder with --model")
        if header.reference_kind == packets.REFERENCE_NONE:
            return EntropyPath(network, self.backend, None, None)
        if bank is None or bank.hash[:4] != header.bank_tag:
            found = f"has {bank.hash.hex()}" if bank else f"has none ({self.model.bank_problem})"
            raise WrongModel(f"the stream needs the reference bank {header.bank_hash.hex()}, the model {found}: put it into {self.model.folder}")
        if header.semantic == NO_REFERENCE:
            return EntropyPath(network, self.backend, None, None)
        if header.semantic >= len(bank):
            raise CorruptStream(f"semantic reference {header.semantic} is not in the bank of {len(bank)}")
        return EntropyPath(network, self.backend, bank, header.semantic)


class _BandDecoding:
    """The intact bands of one stream. A band that turns out corrupt is dropped, the others go on."""

    def __init__(self, decoder: Decoder, header: packets.StreamHeader, payloads: dict[int, packets.BandPayload], path: EntropyPath) -> None:
        self.network, self.combined, self.path = decoder.model.network, decoder.combined, path
        rows, self.columns = (-(-side // PAD_MULTIPLE) for side in (header.height, header.width))
        self.rows = rows
        self.slices = band_slices(rows, header.band_rows)
        self.payloads = {band: payload for band, payload in payloads.items() if band < len(self.slices)}
        self.latents: dict[int, NDArray[np.int32]] = {}
        self.bits: dict[int, NDArray[np.float32]] = {}

    def run(self) -> None:
        heights = {self.slices[band].stop - self.slices[band].start for band in self.payloads}
        for height in sorted(heights, reverse=True):
            self._run_batch([band for band in self.payloads if self.slices[band].stop - self.slices[band].start == height], height)

    def _decode_z(self, bands: list[int], height: int) -> tuple[dict[int, rans.BandDecoder], NDArray[np.uint8]]:
        """(coders by place in `bands`, z uint8[n,height,columns,Z]); a band that turns out corrupt has no coder, and LATENT_OFFSET for z."""
        coders: dict[int, rans.BandDecoder] = {}
        z = np.full((len(bands), height, self.columns, self.network.hyper), LATENT_OFFSET, np.uint8)
        for n, band in enumerate(bands):
            try:
                coder = rans.BandDecoder(self.payloads[band].payload, self.combined, self.payloads[band].lanes_log2)
                z[n] = coder.decode_hyper(height, self.columns, self.network.hyper)
            except (CorruptStream, UnsupportedStream):
                continue
            coders[n] = coder
        return coders, z

    def _run_batch(self, bands: list[int], height: int) -> None:
        coders, z = self._decode_z(bands, height)
        if not coders:
            return
        batch = self.path.batch(bands, z)
        planes: list[NDArray[np.uint8]] = []
        adaptations = {n: Adaptation(self.network) for n in coders}
        y_hat: dict[int, list[NDArray[np.int32]]] = {n: [] for n in coders}
        bits: dict[int, list[NDArray[np.float32]]] = {n: [] for n in coders}
        for _, mu, scale in self.path.phases(batch, planes):
            plane = np.full(mu.shape, LATENT_OFFSET, np.uint8)
            for n in list(coders):
                params = arithmetic.quality_params(self.network, self.payloads[bands[n]].quality)
                level = arithmetic.scale_level(scale[n], params)
                try:
                    symbols, tables = coders[n].decode_latents(level, adaptations[n])
                except CorruptStream:
                    del coders[n]
                    continue
                decoded, plane[n] = arithmetic.dequantise(mu[n], symbols, params)
                y_hat[n].append(decoded)
                bits[n].append(rans.estimated_bits(symbols, tables, self.combined, self.network))
            planes.append(plane)
        for n, coder in coders.items():
            try:
                coder.finish()
            except CorruptStream:
                continue
            self.latents[bands[n]] = interleave(y_hat[n])
            self.bits[bands[n]] = interleave([phase[:, :, None] for phase in bits[n]])[:, :, 0]

    def assembled(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """(y_hat, bits) of the whole picture, zero where bands are lost."""
        y_hat = np.zeros((4 * self.rows, 4 * self.columns, self.network.latents), np.int32)
        bits = np.zeros(y_hat.shape[:2], np.float32)
        for band, latents in self.latents.items():
            s = slice(4 * self.slices[band].start, 4 * self.slices[band].stop)
            y_hat[s], bits[s] = latents, self.bits[band]
        return y_hat, bits
