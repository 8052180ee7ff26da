"""FORMAT 2 as the reference codec understands it: packets written and read in plain Python. Part of reference.py, and as slow and obvious."""
from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from remac_runtime.errors import BadInput, CorruptStream, UnsupportedStream
from remac_runtime.format import BAND_UNIT, LANES_LOG2_MAX, MOSAICS, NO_REFERENCE, PACKET_MAX, PAD_MULTIPLE, QUALITIES, SIDE_MAX
from remac_runtime.network import Bank, Network

FIRST_SYNC, OTHER_SYNC, MINOR, EARLIER_IMAGE, REFERENCE_SECTION = b"RMH1", b"RMP1", 0, 2, 1 << 4
FIELDS = struct.Struct("<4sIHHHBB4s4sHH8B")                      # bytes 0..35; the CRC follows
DETAILS = struct.Struct("<BB8s4s4s")                             # what the payload of the first packet begins with (2.1)
EARLIER_BYTES = 8
HEADER_BYTES = FIELDS.size + 4
PAYLOAD_MAX = PACKET_MAX - HEADER_BYTES


class Header(NamedTuple):
    """Bytes 0..35 of a packet, in the order of FORMAT 2."""

    sync: bytes
    image_id: int
    sequence: int
    length: int
    band: int
    fragment: int
    fragments: int
    codec_tag: bytes
    bank_tag: bytes
    width: int
    height: int
    sample: int
    band_units: int
    quality: int
    coder: int
    reference_kind: int
    semantic: int
    texture: int
    mosaic: int

    def common(self) -> Header:
        """The fields that all packets of an image share (2.3), the others 0."""
        return self._replace(sync=b"", sequence=0, length=0, band=0, fragment=0, fragments=0, quality=0, coder=0)

    def padded(self) -> tuple[int, int]:
        """Rows and columns of the padded picture (3)."""
        return -(-self.height // PAD_MULTIPLE) * PAD_MULTIPLE, -(-self.width // PAD_MULTIPLE) * PAD_MULTIPLE

    def bands(self) -> int:
        return -(-self.padded()[0] // (self.band_units * BAND_UNIT))

    def rows(self, band: int, stride: int) -> slice:
        """The rows of a band in a tensor of 1/stride."""
        height = self.band_units * BAND_UNIT
        return slice(band * height // stride, min((band + 1) * height, self.padded()[0]) // stride)


Packet = tuple[Header, bytes]                                    # and its payload


def _crc_step(crc: int) -> int:
    """Eight bits of CRC-32C."""
    for _ in range(8):
        crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_CRC_STEPS = [_crc_step(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_STEPS[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def write_packet(header: Header, payload: bytes) -> bytes:
    fields = FIELDS.pack(*header._replace(length=len(payload)))
    return fields + struct.pack("<I", crc32c(fields + payload)) + payload


def in_bounds(h: Header) -> bool:
    """Every bound of 1 and 2 on the fields of a packet."""
    picture = 1 <= h.width <= SIDE_MAX and 1 <= h.height <= SIDE_MAX and h.sample >> 7 == 0 and h.band_units >= 1
    none = (h.bank_tag, h.semantic, h.texture) == (bytes(4), NO_REFERENCE, NO_REFERENCE)
    references = (h.reference_kind == 0 and none) or h.reference_kind in (1, EARLIER_IMAGE)
    coding = h.length <= PAYLOAD_MAX and h.quality < QUALITIES and h.coder >> 5 == 0 and h.coder & 15 <= LANES_LOG2_MAX and h.mosaic < MOSAICS
    if not (picture and references and coding):
        return False
    sync = FIRST_SYNC if (h.band, h.fragment) == (0, 0) else OTHER_SYNC
    full = h.fragment == h.fragments - 1 or h.length == PAYLOAD_MAX                              # 2.2
    return h.sync == sync and h.band < h.bands() and h.fragment < h.fragments and full


def details_of(header: Header, payload: bytes) -> bytes | None:
    """2.1: the details that the payload of a packet begins with, none but in the first packet of a stream; None where they are not valid."""
    if header.sync == OTHER_SYNC:
        return b""
    known = DETAILS.size + (EARLIER_BYTES if header.reference_kind == EARLIER_IMAGE else 0)
    return payload[:payload[0]] if payload and known <= payload[0] <= len(payload) else None


def packet_at(data: bytes, at: int) -> Packet | None:
    """The packet that begins at byte `at`; None where its sync, a bound or its CRC says that there is none."""
    if at + HEADER_BYTES > len(data):
        return None
    header = Header(*FIELDS.unpack_from(data, at))
    whole = data[at:at + HEADER_BYTES + header.length]
    if not in_bounds(header) or len(whole) < HEADER_BYTES + header.length:
        return None
    payload = whole[HEADER_BYTES:]
    return (header, payload) if whole == write_packet(header, payload) and details_of(header, payload) is not None else None


def read_packets(data: bytes) -> list[Packet]:
    """2.3: the valid packets of the image of the first valid packet; all other bytes are skipped."""
    found: list[Packet] = []
    at = 0
    while (at := data.find(b"RM", at)) >= 0:
        packet = packet_at(data, at)
        at += 1 if packet is None else HEADER_BYTES + packet[0].length
        if packet and (not found or packet[0].common() == found[0][0].common()):
            found.append(packet)
    if not found and data[:3] in (FIRST_SYNC[:3], OTHER_SYNC[:3]) and data[3:4].isdigit() and data[3:4] != FIRST_SYNC[3:]:
        raise UnsupportedStream(f"a stream of major version {data[3:4].decode()}: use a newer remac")
    if not found:
        raise CorruptStream(f"no valid packet in {len(data)} bytes: not a remac stream, or damaged throughout")
    return found


def join_band(packets: Sequence[Packet], band: int) -> Packet:
    """2.2: (header of its first packet, its bytes) of a band. Of two copies of a fragment the first counts; what contradicts the first packet of
    the band is left out. Raises CorruptStream where a part is missing.
    """
    own = [(header, payload[len(details_of(header, payload) or b""):]) for header, payload in packets if header.band == band]
    parts: dict[int, bytes] = {}
    for header, payload in own:
        if (header.fragments, header.quality, header.coder) == (own[0][0].fragments, own[0][0].quality, own[0][0].coder):
            parts.setdefault(header.fragment, payload)
    if not own or len(parts) < own[0][0].fragments:
        raise CorruptStream(f"band {band}: a packet is missing")
    return own[0][0], b"".join(payload for _, payload in sorted(parts.items()))


def write_stream(common: Header, network: Network, bank: Bank | None, bands: Iterable[tuple[int, int, bytes]],
                 *, image_id: int | None = None) -> bytes:
    """The packets of (quality, coder, bytes) of every band."""
    bands = list(bands)
    if image_id is None:                                         # 2.2
        image_id = crc32c(b"".join(struct.pack("<I", crc32c(payload)) for _, _, payload in bands))
    details = DETAILS.pack(DETAILS.size, MINOR, network.profile.encode("ascii"), network.hash[4:], bank.hash[4:] if bank else bytes(4))
    packets: list[bytes] = []
    for band, (quality, coder, coded) in enumerate(bands):
        payload = coded if band else details + coded
        parts = [payload[i:i + PAYLOAD_MAX] for i in range(0, len(payload), PAYLOAD_MAX)]
        if len(parts) > 255:
            raise BadInput(f"band {band}: {len(payload)} bytes do not fit 255 packets: use bands of fewer rows or a lower quality")
        for fragment, part in enumerate(parts):
            packets.append(write_packet(common._replace(
                sync=OTHER_SYNC if packets else FIRST_SYNC, image_id=image_id, sequence=len(packets), band=band, fragment=fragment,
                fragments=len(parts), quality=quality, coder=coder), part))
    return b"".join(packets)
