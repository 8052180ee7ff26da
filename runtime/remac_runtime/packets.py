"""Packets of a stream (FORMAT 2): writing them, and finding what is left of them in damaged bytes. Needs neither NumPy nor a model."""
from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from remac_runtime.choices import MAX_PIXELS
from remac_runtime.crc import crc32c
from remac_runtime.errors import BadInput, CorruptStream, UnsupportedStream
from remac_runtime.format import (
    BAND_ROWS,
    BAND_UNIT,
    LANES_LOG2_MAX,
    MOSAIC_SIDE_MIN,
    MOSAICS,
    NO_REFERENCE,
    PACKET_MAX,
    PAD_MULTIPLE,
    QUALITIES,
    SIDE_MAX,
)

SYNC_FIRST = b"RMH1"              # of fragment 0 of band 0
SYNC_OTHER = b"RMP1"
_SYNC = re.compile(SYNC_FIRST + b"|" + SYNC_OTHER)
MAJOR, MINOR = 1, 0                # the major version is the digit of the syncs

_FIELDS = struct.Struct("<4sIHHHBB4s4sHHBBBBBBBB")   # the header of a packet but for its CRC
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size
PAYLOAD_MAX = PACKET_MAX - HEADER_BYTES
FRAGMENTS_MAX = 255
_DETAILS = struct.Struct("<BB8s4s4s")                # what the payload of the first packet begins with (FORMAT 2.1)
DETAILS_BYTES = _DETAILS.size
_EARLIER_BYTES = 8
_COMMON = (slice(4, 8), slice(16, 30), slice(32, 36))   # bytes of a header that all packets of a stream share (FORMAT 2.3)

COMPANDING_NONE, COMPANDING_SQUARE_ROOT = 0, 1
REFERENCE_NONE, REFERENCE_BANK, REFERENCE_EARLIER = 0, 1, 2
_NO_TAG = bytes(4)

# A candidate whose CRC fails costs a pass over up to 64 KiB; a file made of sync markers would otherwise take quadratic time.
_FAILED_CRC_FACTOR = 8
_FAILED_CRC_FLOOR = 4 << 20       # so that a few kilobytes of false markers do not hide a small stream


@dataclass(frozen=True)
class StreamHeader:
    """What all packets of a stream agree on, and the details of the first.

    `codec_hash` and `bank_hash` are 8 bytes, or their first 4 where the details are lost: compare them as prefixes (all 0 without references).
    `profile` is then empty. `quality` is that of the first band found. `image_id` None asks pack_stream to derive it (FORMAT 2.2). `bands` follows
    from the size; 0 asks for that.
    """

    width: int
    height: int
    codec_hash: bytes
    profile: str = ""
    quality: int = 0
    depth: int = 8
    grey: bool = False
    companding: int = COMPANDING_NONE
    band_rows: int = BAND_ROWS
    reference_kind: int = REFERENCE_NONE
    semantic: int = NO_REFERENCE
    texture: int = NO_REFERENCE
    bank_hash: bytes = bytes(8)
    image_id: int | None = None
    earlier_image: bytes = b""
    bands: int = 0
    mosaic: int = 0

    def __post_init__(self) -> None:
        bands = -(-self.padded_height // self.band_rows) if self.band_rows else 0
        assert self.bands in {0, bands}, f"{self.bands} bands, {self.height} rows in bands of {self.band_rows} make {bands}"
        object.__setattr__(self, "bands", bands)

    @property
    def codec_tag(self) -> bytes:
        return self.codec_hash[:4]

    @property
    def bank_tag(self) -> bytes:
        return self.bank_hash[:4]

    @property
    def padded_width(self) -> int:
        return -(-self.width // PAD_MULTIPLE) * PAD_MULTIPLE

    @property
    def padded_height(self) -> int:
        return -(-self.height // PAD_MULTIPLE) * PAD_MULTIPLE

    def rows_of(self, band: int) -> tuple[int, int]:
        """First and end row of a band, in pixels of the padded picture."""
        return band * self.band_rows, min((band + 1) * self.band_rows, self.padded_height)


@dataclass(frozen=True)
class BandPayload:
    """A coded band (FORMAT 6.2) and the fields of its packets that decoding needs."""

    payload: bytes
    quality: int
    lanes_log2: int


@dataclass(frozen=True)
class Packet:
    """A packet whose CRC and fields are valid.

    `offset` counts bytes from the start of the stream; `common` are the bytes of FORMAT 2.3; `details` those of 2.1, empty but in the first packet of
    a stream; `part` is the rest of the payload, of a band.
    """

    offset: int
    sequence: int
    band: int
    fragment: int
    fragments: int
    quality: int
    coder: int
    common: bytes
    header: StreamHeader
    details: bytes
    part: bytes
    crc: int

    @property
    def size(self) -> int:
        return HEADER_BYTES + len(self.details) + len(self.part)

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def lanes_log2(self) -> int:
        return self.coder & 0x0F

    @property
    def has_reference_section(self) -> bool:
        return bool(self.coder & 0x10)


@dataclass(frozen=True)
class Scanned:
    """What is left of a stream. A band is in `bands` (all its fragments are intact) or in `lost`.

    `unsupported` are the lost bands that are intact but need a newer reader. `missing_packets` counts one for a band of which nothing is left, since
    its fragments alone say how many they were.
    """

    header: StreamHeader
    bands: dict[int, BandPayload]
    lost: tuple[int, ...]
    unsupported: tuple[int, ...]
    details_intact: bool
    packets: int
    foreign_packets: int
    missing_packets: int
    skipped_bytes: int


# ---- writing (FORMAT 2, 2.1, 2.2)

def pack_stream(header: StreamHeader, bands: Sequence[BandPayload]) -> bytes:
    """The stream of a picture; `bands` from the top. Raises BadInput where a band is too long for its packets.

    Wrong fields are errors of the caller, so they are asserted.
    """
    assert len(bands) == header.bands, f"{len(bands)} bands, the header's size asks for {header.bands}"
    assert len(header.codec_hash) == len(header.bank_hash) == 8
    assert header.band_rows % BAND_UNIT == 0
    assert header.reference_kind != REFERENCE_EARLIER or len(header.earlier_image) == _EARLIER_BYTES
    if header.image_id is None:
        crcs = b"".join(_CRC.pack(crc32c(band.payload)) for band in bands)
        header = replace(header, image_id=crc32c(crcs))
    details = _details(header)
    stream: list[bytes] = []
    for number, band in enumerate(bands):
        cut = _cut(b"" if number else details, band.payload, number)
        for fragment, payload in enumerate(cut):
            stream.append(_packet(header, (len(stream), number, fragment, len(cut)), band.quality, band.lanes_log2, payload))
    return b"".join(stream)


def _details(header: StreamHeader) -> bytes:
    earlier = header.earlier_image
    return _DETAILS.pack(_DETAILS.size + len(earlier), MINOR, header.profile.encode("ascii"), header.codec_hash[4:], header.bank_hash[4:]) + earlier


def _cut(details: bytes, band: bytes, number: int) -> list[bytes]:
    """The payloads of a band's packets."""
    payload = details + band
    if len(payload) > FRAGMENTS_MAX * PAYLOAD_MAX:
        raise BadInput(f"band {number} takes {len(band)} bytes, its packets hold at most {FRAGMENTS_MAX * PAYLOAD_MAX - len(details)}: "
                       "choose a lower quality or fewer rows a band")
    return [payload[start:start + PAYLOAD_MAX] for start in range(0, max(len(payload), 1), PAYLOAD_MAX)]


def _packet(header: StreamHeader, place: tuple[int, int, int, int], quality: int, coder: int, payload: bytes) -> bytes:
    """One packet; `place` is (sequence, band, fragment, fragments)."""
    sequence, band, fragment, fragments = place
    sample = (header.depth - 1) | header.grey << 4 | header.companding << 5
    sync = SYNC_OTHER if band or fragment else SYNC_FIRST
    fields = _FIELDS.pack(sync, header.image_id, sequence, len(payload), band, fragment, fragments, header.codec_tag, header.bank_tag,
                          header.width, header.height, sample, header.band_rows // BAND_UNIT, quality, coder,
                          header.reference_kind, header.semantic, header.texture, header.mosaic)
    packet = fields + _CRC.pack(crc32c(payload, crc32c(fields))) + payload
    assert _parse(packet, 0) is not None, f"a field is out of the range of FORMAT 2: {header}, quality {quality}, coder {coder}"
    return packet


# ---- reading (FORMAT 2.3)

def find_packets(data: bytes) -> Iterator[Packet]:
    """Every valid packet in the order of the bytes, whatever lies between them. Work is bounded by a small multiple of the length."""
    failed_budget = _FAILED_CRC_FACTOR * len(data) + _FAILED_CRC_FLOOR
    position = 0
    while failed_budget > 0 and (found := _SYNC.search(data, position)):
        packet = _parse(data, found.start())
        if packet is not None and _crc_of(data, packet) == packet.crc:
            yield packet
            position = packet.end
        else:
            failed_budget -= packet.size if packet is not None else 0
            position = found.start() + 1


def _crc_of(data: bytes, packet: Packet) -> int:
    return crc32c(data[packet.offset + HEADER_BYTES:packet.end], crc32c(data[packet.offset:packet.offset + _FIELDS.size]))


def _parse(data: bytes, offset: int) -> Packet | None:
    """The packet at `offset` where its fields keep FORMAT 2 and it lies within the data; its CRC is not looked at."""
    start = offset + HEADER_BYTES   # of the payload
    if start > len(data):
        return None
    (sync, image_id, sequence, length, band, fragment, fragments, codec_tag, bank_tag, width, height, sample, band_units, quality, coder,
     reference_kind, semantic, texture, mosaic) = _FIELDS.unpack_from(data, offset)
    header = StreamHeader(width, height, codec_tag, "", quality, (sample & 15) + 1, bool(sample & 16), sample >> 5 & 3, band_units * BAND_UNIT,
                          reference_kind, semantic, texture, bank_tag, image_id, mosaic=mosaic)
    no_reference = (bank_tag, semantic, texture) == (_NO_TAG, NO_REFERENCE, NO_REFERENCE)
    valid = (length <= PAYLOAD_MAX and start + length <= len(data)
             and 1 <= width <= SIDE_MAX and 1 <= height <= SIDE_MAX and not sample & 0x80 and band_units >= 1
             and quality < QUALITIES and coder & 0x0F <= LANES_LOG2_MAX and not coder & 0xE0 and mosaic < MOSAICS
             and reference_kind <= REFERENCE_EARLIER and (reference_kind != REFERENCE_NONE or no_reference))
    if not valid or not _valid_place(header, sync, band, fragment, fragments, length):
        return None
    size = data[start] if sync == SYNC_FIRST and length else 0      # of the details
    if sync == SYNC_FIRST and not _details_bytes(header) <= size <= length:
        return None
    raw = data[offset:start]
    return Packet(offset, sequence, band, fragment, fragments, quality, coder, b"".join(raw[part] for part in _COMMON), header,
                  data[start:start + size], data[start + size:start + length], _CRC.unpack_from(data, start - _CRC.size)[0])


def _valid_place(header: StreamHeader, sync: bytes, band: int, fragment: int, fragments: int, length: int) -> bool:
    if (sync == SYNC_FIRST) != (band == fragment == 0):
        return False
    return band < header.bands and fragment < fragments and (fragment == fragments - 1 or length == PAYLOAD_MAX)


def _details_bytes(header: StreamHeader) -> int:
    """Of the details that this version knows."""
    return _DETAILS.size + (_EARLIER_BYTES if header.reference_kind == REFERENCE_EARLIER else 0)


def scan(data: bytes, max_pixels: int = MAX_PIXELS) -> Scanned:
    """What can be decoded of a stream, however damaged.

    Raises CorruptStream where no valid packet is left, UnsupportedStream for another major version, a sample format that this version does not
    define, a picture of more than `max_pixels`, or where all that is left needs a newer reader. Allocates nothing beyond the payloads.
    """
    found = list(find_packets(data))
    if not found:
        raise _nothing_found(data)
    own = [packet for packet in found if packet.common == found[0].common]
    _check_supported(found[0].header, max_pixels)
    detailed = next(filter(None, map(_with_details, own)), None)
    fragments = _collect(own)
    bands, unsupported = _join(fragments)
    first = next(iter(fragments[min(fragments)].values()))
    header = replace(detailed or own[0].header, quality=first.quality)
    if unsupported and not bands and header.reference_kind == REFERENCE_EARLIER:
        raise UnsupportedStream("its bands refer to an earlier image, which this version does not decode: install a newer remac-runtime")
    missing = sum(next(iter(parts.values())).fragments - len(parts) for parts in fragments.values()) + header.bands - len(fragments)
    return Scanned(header, bands, tuple(number for number in range(header.bands) if number not in bands), unsupported, detailed is not None, len(own),
                   len(found) - len(own), missing, len(data) - sum(packet.size for packet in found))


def _nothing_found(data: bytes) -> CorruptStream | UnsupportedStream:
    if not data:
        return CorruptStream("the file is empty: copy or receive it again")
    if data[:3] in {SYNC_FIRST[:3], SYNC_OTHER[:3]} and data[:4] not in {SYNC_FIRST, SYNC_OTHER} and data[3:4].isdigit():
        return UnsupportedStream(f"stream format {data[3:4].decode()}, this version reads format {MAJOR}: install a newer remac-runtime")
    if _SYNC.search(data):
        return CorruptStream(f"no intact packet in {len(data)} bytes, every CRC fails or the packets are cut off: receive it again")
    return CorruptStream(f"not a remac stream: no packet marker in {len(data)} bytes, which begin with {data[:4]!r}: "
                         "name a file that `remac encode` wrote")


def _check_supported(header: StreamHeader, max_pixels: int) -> None:
    plain = header.depth == 8 and header.companding == COMPANDING_NONE
    companded = header.depth > 8 and header.grey and header.companding == COMPANDING_SQUARE_ROOT
    if not plain and not companded:
        kind = "grey" if header.grey else "colour"
        raise UnsupportedStream(f"{header.depth}-bit {kind} samples with companding {header.companding}: install a newer remac-runtime")
    if header.mosaic and (header.grey or header.depth > 8 or min(header.width, header.height) < MOSAIC_SIDE_MIN):
        raise UnsupportedStream(f"a mosaic of a picture of {header.width}x{header.height} that is not in colour of 8 bits a sample or too small: "
                                "install a newer remac-runtime")
    if header.width * header.height > max_pixels:
        raise UnsupportedStream(f"a picture of {header.width}x{header.height} is beyond the limit of {max_pixels} pixels: "
                                "raise the limit (max_pixels, --max-pixels) if you trust the stream")


def _with_details(packet: Packet) -> StreamHeader | None:
    """The header of a packet with its details (FORMAT 2.1); None where it has none that can be used."""
    if not packet.details:
        return None
    header = packet.header
    _, _, profile, codec_rest, bank_rest = _DETAILS.unpack_from(packet.details)
    name = profile.rstrip(b"\0").decode("latin-1")
    if not (name.isascii() and name.isprintable()):
        return None
    return replace(header, profile=name, codec_hash=header.codec_hash + codec_rest, bank_hash=header.bank_hash + bank_rest,
                   earlier_image=packet.details[_DETAILS.size:_details_bytes(header)])


def _collect(packets: Sequence[Packet]) -> dict[int, dict[int, Packet]]:
    """Fragments of each band by number. Of duplicates the first counts; fragments that disagree with the first one of their band are left out."""
    bands: dict[int, dict[int, Packet]] = {}
    for packet in packets:
        parts = bands.setdefault(packet.band, {})
        first = next(iter(parts.values()), packet)
        if (packet.fragments, packet.quality, packet.coder) == (first.fragments, first.quality, first.coder):
            parts.setdefault(packet.fragment, packet)
    return bands


def _join(bands: dict[int, dict[int, Packet]]) -> tuple[dict[int, BandPayload], tuple[int, ...]]:
    whole: dict[int, BandPayload] = {}
    unsupported = []
    for number, parts in sorted(bands.items()):
        first = next(iter(parts.values()))
        if len(parts) < first.fragments:
            continue
        if first.has_reference_section:
            unsupported.append(number)
            continue
        payload = b"".join(parts[fragment].part for fragment in range(first.fragments))
        whole[number] = BandPayload(payload, first.quality, first.lanes_log2)
    return whole, tuple(unsupported)
