"""Encode and decode a picture over a backend. Same bytes as reference.py, whatever the backend, strip height or thread count."""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from remac_runtime import arithmetic, images, mosaics, packets, rans, references
from remac_runtime.adaptation import Adaptation, before, hyper_tables
from remac_runtime.analysis import Analysed, analyse, strip_height
from remac_runtime.backends import Backend, open_backend
from remac_runtime.choices import AUTOMATIC
from remac_runtime.decoding import Decoded, Decoder, LossReport
from remac_runtime.entropy_path import Batch, EntropyPath, band_slices
from remac_runtime.errors import BadInput
from remac_runtime.format import BAND_ROWS, BAND_UNIT, QUALITIES, SIDE_MAX
from remac_runtime.ground import GroundDecoder
from remac_runtime.model import Model

__all__ = ["Decoded", "Decoder", "EncodeOptions", "Encoder", "LossReport"]


@dataclass(frozen=True)
class EncodeOptions:
    """What an operator chooses. At most one of `target_bytes`, `target_psnr`; either overrides `quality`. `strip_rows` bounds memory, not bytes."""

    quality: int = 32
    target_bytes: int | None = None
    target_psnr: float | None = None
    strip_rows: int | None = None
    band_rows: int = BAND_ROWS
    mosaic: str = AUTOMATIC
    references: bool = True
    image_id: int | None = None

    def check(self) -> None:
        """Raises BadInput."""
        for name in ("quality", "target_bytes", "strip_rows", "band_rows", "image_id"):
            value = getattr(self, name)
            optional = name not in ("quality", "band_rows")
            if not (hasattr(value, "__index__") or (optional and value is None)):
                raise BadInput(f"{name} {value!r} is not a whole number")
        if not 0 <= self.quality < QUALITIES:
            raise BadInput(f"quality {self.quality} is not in 0..{QUALITIES - 1}")
        if self.band_rows % BAND_UNIT or not BAND_UNIT <= self.band_rows <= 255 * BAND_UNIT:
            raise BadInput(f"band rows {self.band_rows} is not a multiple of {BAND_UNIT} in {BAND_UNIT}..{255 * BAND_UNIT}")
        if self.strip_rows is not None and self.strip_rows < 1:
            raise BadInput(f"strip rows {self.strip_rows} is not positive")
        if self.target_bytes is not None and self.target_psnr is not None:
            raise BadInput("target_bytes and target_psnr exclude each other: name one")
        if self.image_id is not None and not 0 <= self.image_id < 1 << 32:
            raise BadInput(f"image id {self.image_id} does not fit 32 bits")


@dataclass(frozen=True)
class _Prepared:
    """A picture after everything that does not depend on the quality."""

    header: packets.StreamHeader
    path: EntropyPath
    analysed: Analysed
    batches: tuple[Batch, ...]
    slices: tuple[slice, ...]


class Encoder:
    """Encodes pictures with one model. Use as a context manager, or call close(). A `backend` that is open already is left open."""

    def __init__(self, model: Model, backend: Backend | str | None = None, threads: int = 1) -> None:
        self.model = model
        self.owned = not isinstance(backend, Backend)
        self.backend = backend if isinstance(backend, Backend) else open_backend(backend, model.folder, model.network, threads)
        self.combined = rans.combine(model.network)
        self.threads, self.ground = threads, GroundDecoder(model, threads)      # for searches for a PSNR; opened by the first one

    def close(self) -> None:
        if self.owned:
            self.backend.close()

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def encode(self, picture: images.Picture, options: EncodeOptions | None = None) -> bytes:
        """One stream. Raises BadInput for a picture or a wish that cannot be met."""
        options = options or EncodeOptions()
        options.check()
        pattern = mosaics.chosen(picture.samples, options.mosaic)
        picture = mosaics.coloured(picture, pattern)
        prepared = self._prepare(picture, pattern, options)
        if options.target_bytes is not None:
            return self._largest_that_fits(prepared, options.target_bytes)
        if options.target_psnr is not None:
            return self._smallest_that_reaches(prepared, picture, options.target_psnr)
        return self._at_quality(prepared, options.quality)

    def _prepare(self, picture: images.Picture, pattern: int, options: EncodeOptions) -> _Prepared:
        height, width = picture.samples.shape[:2]
        if not (0 < height <= SIDE_MAX and 0 < width <= SIDE_MAX):
            raise BadInput(f"a picture of {width}x{height} is not in 1..{SIDE_MAX} a side: cut it into tiles")
        pixels = mosaics.sharpened(images.to_pixels(picture), pattern)
        analysed = analyse(self.backend, pixels, strip_height(options.strip_rows, height, width))
        bank = self.model.bank if options.references else None
        semantic, texture = references.choose(analysed.texture, analysed.semantic, bank)
        path = EntropyPath(self.model.network, self.backend, bank, semantic if bank else None)
        slices = band_slices(len(analysed.z), options.band_rows)
        header = packets.StreamHeader(
            image_id=options.image_id, profile=self.model.network.profile, codec_hash=self.model.network.hash,
            bank_hash=bank.hash if bank else bytes(8), width=width, height=height, depth=picture.depth, grey=picture.samples.ndim == 2,
            companding=images.companding_of(picture.depth), band_rows=options.band_rows, reference_kind=int(bank is not None),
            semantic=semantic, texture=texture, quality=options.quality, bands=len(slices), mosaic=pattern)
        batches = []
        strip = strip_height(options.strip_rows, height, width)
        for group in _groups(slices, max(1, strip // options.band_rows)):
            batches.append(path.batch(group, np.stack([analysed.z[slices[band]] for band in group])))
        return _Prepared(header, path, analysed, tuple(batches), tuple(slices))

    def _at_quality(self, prepared: _Prepared, quality: int) -> bytes:
        params = arithmetic.quality_params(self.model.network, quality)
        payloads: list[packets.BandPayload] = []
        for batch in prepared.batches:
            first, last = prepared.slices[batch.bands[0]], prepared.slices[batch.bands[-1]]       # bands of a batch follow each other: a view does
            latents = prepared.analysed.y[4 * first.start:4 * last.stop].reshape(len(batch.bands), -1, *prepared.analysed.y.shape[1:])
            coded = prepared.path.encode(batch, latents, params)
            for n, band in enumerate(batch.bands):
                z = prepared.analysed.z[prepared.slices[band]]
                payloads.append(self._pack_band(z, [(phase.symbols[n], phase.level[n]) for phase in coded], quality))
        return packets.pack_stream(replace(prepared.header, quality=quality), payloads)

    def _pack_band(self, z: NDArray[np.uint8], phases: list[tuple[NDArray[np.int32], NDArray[np.uint16]]], quality: int) -> packets.BandPayload:
        network = self.model.network
        adaptation = Adaptation(network)
        parts = [adaptation.collect(symbols, level) for symbols, level in phases]
        symbols = np.concatenate([z.reshape(-1).astype(np.int32), *(part[0] for part in parts)])
        tables = np.concatenate([hyper_tables(before(z)).reshape(-1), *(part[1] for part in parts)])
        lanes_log2 = rans.lanes_log2_for(len(symbols))
        return packets.BandPayload(rans.encode(symbols, tables, self.combined, lanes_log2), quality, lanes_log2)

    def _largest_that_fits(self, prepared: _Prepared, budget: int) -> bytes:
        """A stream of at most `budget` bytes, of the highest quality that a bisection finds.

        Sizes grow with the quality but for some bytes, so in a stream of a few hundred bytes a higher quality may fit, too.
        """
        best: bytes | None = None
        low, high = 0, QUALITIES - 1
        while low <= high:
            quality = (low + high) // 2
            try:
                data = self._at_quality(prepared, quality)
            except BadInput as error:       # a band is too long for its packets
                problem, high = error, quality - 1
                continue
            if len(data) <= budget:
                best, low = data, quality + 1
            else:
                problem = BadInput(f"the picture does not fit {budget} bytes: the smallest possible size is {len(data)} bytes (quality {quality})")
                high = quality - 1
        if best is None:
            raise problem           # of quality 0, which is tried last
        return best

    def _smallest_that_reaches(self, prepared: _Prepared, picture: images.Picture, target_db: float) -> bytes:
        """A stream that decodes to at least `target_db`, of the lowest quality that a bisection finds."""
        best: bytes | None = None
        low, high = 0, QUALITIES - 1
        with Decoder(self.model, self.backend, self.threads, self.ground) as decoder:
            while low <= high:
                quality = (low + high) // 2
                try:
                    data = self._at_quality(prepared, quality)
                except BadInput as error:       # as above: a lower quality may do
                    problem, high = error, quality - 1
                    continue
                reached = images.psnr(decoder.decode(data, max_pixels=SIDE_MAX ** 2).picture, picture)
                if reached >= target_db:
                    best, high = data, quality - 1
                else:
                    problem, low = BadInput(f"{target_db:g} dB cannot be reached: quality {quality} gives {reached:.2f} dB"), quality + 1
        if best is None:
            raise problem
        return best


def _groups(slices: list[slice], limit: int) -> list[list[int]]:
    """Numbers of the bands in groups of one height (all but the last band are alike) and of at most `limit` bands."""
    heights = [s.stop - s.start for s in slices]
    alike = [[band for band, height in enumerate(heights) if height == wanted] for wanted in sorted(set(heights), reverse=True)]
    return [bands[at:at + limit] for bands in alike for at in range(0, len(bands), limit)]
