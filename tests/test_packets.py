"""Packets (FORMAT 2): their bytes, and what survives damage."""
from __future__ import annotations

import random
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remac_runtime import packets
from remac_runtime.errors import BadInput, CorruptStream, UnsupportedStream
from remac_runtime.packets import (
    DETAILS_BYTES,
    FRAGMENTS_MAX,
    HEADER_BYTES,
    PAYLOAD_MAX,
    REFERENCE_BANK,
    REFERENCE_EARLIER,
    BandPayload,
    StreamHeader,
    find_packets,
    pack_stream,
    scan,
)

CODEC, BANK = bytes(range(1, 9)), bytes(range(11, 19))


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit, straight from FORMAT 2: independent of the runtime's."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def header_of(height: int = 300, **changes: object) -> StreamHeader:
    fields: dict[str, Any] = {"width": 200, "codec_hash": CODEC, "profile": "rover-m", "quality": 32, "band_rows": 128}
    return StreamHeader(height=height, **(fields | changes))


def bands_of(count: int, size: int = 50) -> list[BandPayload]:
    return [BandPayload(random.Random(n).randbytes(size + n), (30 + n) % 64, n % 4) for n in range(count)]


def mended(packet: bytearray) -> bytes:
    """The packet with its CRC made right again."""
    packet[36:40] = struct.pack("<I", crc32c(bytes(packet[:36] + packet[40:])))
    return bytes(packet)


STREAM = pack_stream(header_of(), bands_of(3))
PACKETS = [STREAM[p.offset:p.end] for p in find_packets(STREAM)]


def test_crc_of_the_check_string() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_bytes_of_a_stream_written_out_by_hand() -> None:
    first, second = b"abcd", b"efghi"
    header = StreamHeader(width=65, height=67, codec_hash=CODEC, profile="rover-m", quality=33, depth=12, grey=True, companding=1, band_rows=64,
                          reference_kind=1, semantic=4, texture=7, bank_hash=BANK)
    image_id = crc32c(crc32c(first).to_bytes(4, "little") + crc32c(second).to_bytes(4, "little"))

    def packet(sync: bytes, sequence: int, content: bytes, quality: int, coder: int) -> bytes:
        fields = sync + image_id.to_bytes(4, "little") + bytes([sequence, 0, len(content), 0, sequence, 0, 0, 1]) + CODEC[:4] + BANK[:4]
        fields += bytes([65, 0, 67, 0, 11 | 16 | 32, 1, quality, coder, 1, 4, 7, 0])
        return fields + crc32c(fields + content).to_bytes(4, "little") + content

    details = bytes([18, 0]) + b"rover-m\0" + CODEC[4:] + BANK[4:]
    expected = packet(b"RMH1", 0, details + first, 35, 6) + packet(b"RMP1", 1, second, 36, 0)
    assert pack_stream(header, [BandPayload(first, 35, 6), BandPayload(second, 36, 0)]) == expected


@given(st.integers(1, 700), st.integers(1, 4), st.booleans(), st.integers(0, 2 ** 32 - 1), st.data())
@settings(max_examples=60)
def test_round_trip(height: int, units: int, grey: bool, image_id: int, data: st.DataObject) -> None:
    depth = data.draw(st.sampled_from([8, 9, 12, 16])) if grey else 8
    header = header_of(height, band_rows=units * 64, grey=grey, depth=depth, companding=int(depth > 8), image_id=image_id)
    bands = [BandPayload(data.draw(st.binary(max_size=40)), data.draw(st.integers(0, 63)), data.draw(st.integers(0, 8))) for _ in range(header.bands)]
    scanned = scan(pack_stream(header, bands))
    assert scanned.header == replace(header, quality=bands[0].quality)
    assert scanned.bands == dict(enumerate(bands))
    assert (scanned.lost, scanned.skipped_bytes, scanned.foreign_packets, scanned.missing_packets) == ((), 0, 0, 0)


def test_any_subset_of_the_packets_decodes() -> None:
    whole = scan(STREAM)
    for kept in range(1, 8):
        part = scan(b"".join(packet for n, packet in enumerate(PACKETS) if kept >> n & 1))
        assert part.bands == {band: whole.bands[band] for band in range(3) if kept >> band & 1}
        assert part.lost == tuple(band for band in range(3) if not kept >> band & 1)
        assert part.details_intact == bool(kept & 1)
        size = (part.header.width, part.header.height, part.header.bands, part.header.image_id)
        assert size == (whole.header.width, whole.header.height, whole.header.bands, whole.header.image_id)
        assert whole.header.codec_hash.startswith(part.header.codec_hash) and len(part.header.codec_hash) == (8 if kept & 1 else 4)
        assert part.missing_packets == 3 - kept.bit_count()


def test_order_duplicates_and_rubbish_between_packets_do_not_matter() -> None:
    whole = scan(STREAM)
    shuffled = scan(b"rubbish" + PACKETS[1] + b"RMP1" + PACKETS[2] + PACKETS[0] + PACKETS[1] + PACKETS[0] + bytes(30))
    assert shuffled.bands == whole.bands and shuffled.header == whole.header
    assert (shuffled.skipped_bytes, shuffled.lost, shuffled.missing_packets) == (7 + 4 + 30, (), 0)


def test_every_flipped_bit_costs_exactly_its_packet() -> None:
    starts = [*(packet.offset for packet in find_packets(STREAM)), len(STREAM)]
    for position in range(0, len(STREAM), 3):
        damaged = bytearray(STREAM)
        damaged[position] ^= 1 << position % 8
        hit = max(n for n, start in enumerate(starts) if start <= position)
        scanned = scan(bytes(damaged))
        assert scanned.lost == (hit,)
        assert scanned.details_intact == (hit != 0)
        assert scanned.skipped_bytes == starts[hit + 1] - starts[hit]


def test_every_truncation_is_clean() -> None:
    ends = [packet.end for packet in find_packets(STREAM)]
    for length in range(len(STREAM)):
        if length < ends[0]:
            with pytest.raises(CorruptStream):
                scan(STREAM[:length])
        else:
            assert len(scan(STREAM[:length]).bands) == sum(length >= end for end in ends)


def test_packets_of_another_picture_are_ignored() -> None:
    other = pack_stream(header_of(image_id=7), bands_of(3, 60))
    scanned = scan(PACKETS[0] + other + PACKETS[2])
    assert scanned.lost == (1,) and scanned.foreign_packets == 3
    assert scanned.bands[0] == bands_of(3)[0]
    same_id = pack_stream(header_of(image_id=scan(STREAM).header.image_id, width=201), bands_of(3, 60))
    assert scan(PACKETS[0] + same_id).foreign_packets == 3, "the size differs, so it is another picture whatever its id says"


def test_long_bands_are_cut_into_fragments() -> None:
    payload = random.Random(1).randbytes(2 * PAYLOAD_MAX + 5)
    stream = pack_stream(header_of(100), [BandPayload(payload, 40, 6)])
    found = list(find_packets(stream))
    assert [len(packet.part) for packet in found] == [PAYLOAD_MAX - DETAILS_BYTES, PAYLOAD_MAX, DETAILS_BYTES + 5]
    assert [(packet.sequence, packet.fragment, packet.fragments) for packet in found] == [(0, 0, 3), (1, 1, 3), (2, 2, 3)]
    cut = [stream[packet.offset:packet.end] for packet in found]
    assert scan(b"".join([cut[2], cut[0], cut[1]])).bands[0].payload == payload
    assert (scan(cut[2] + cut[0]).lost, scan(cut[2] + cut[0]).missing_packets) == ((0,), 1)
    exact = pack_stream(header_of(100), [BandPayload(payload[:PAYLOAD_MAX - DETAILS_BYTES], 40, 6)])
    assert len(list(find_packets(exact))) == 1
    second = pack_stream(header_of(200), [BandPayload(b"", 0, 0), BandPayload(payload[:PAYLOAD_MAX], 40, 6)])
    assert len(list(find_packets(second))) == 2, "the details are in the first band alone"
    most = FRAGMENTS_MAX * PAYLOAD_MAX - DETAILS_BYTES
    assert len(list(find_packets(pack_stream(header_of(100), [BandPayload(bytes(most), 0, 0)])))) == FRAGMENTS_MAX
    with pytest.raises(BadInput, match="lower quality"):
        pack_stream(header_of(100), [BandPayload(bytes(most + 1), 0, 0)])


def test_fragments_that_disagree_with_the_first_of_their_band_are_left_out() -> None:
    payload = random.Random(2).randbytes(PAYLOAD_MAX + 9)
    first, other = (pack_stream(header_of(100, image_id=5), [BandPayload(payload, quality, 6)]) for quality in (20, 21))
    ours = [first[packet.offset:packet.end] for packet in find_packets(first)]
    theirs = [other[packet.offset:packet.end] for packet in find_packets(other)]
    assert scan(ours[0] + theirs[1]).lost == (0,)
    assert scan(ours[0] + theirs[1] + ours[1]).bands[0].payload == payload


FIELDS_OUT_OF_RANGE = {
    "fragment beyond fragments": (14, 1), "no fragments": (15, 0), "no width": (24, 0, 0), "no height": (26, 0, 0), "width too large": (25, 0xFF),
    "sample bit 7": (28, 0x87), "no band rows": (29, 0), "quality 64": (30, 64), "lanes 2^9": (31, 9), "coder bit 5": (31, 0x20),
    "reference kind 3": (32, 3), "entry without references": (33, 0), "bank tag without references": (20, 1), "mosaic 5": (35, 5),
    "band beyond the picture": (12, 3), "the sync of the first packet": (2, ord("H")), "band 0 with another sync": (12, 0),
}


@pytest.mark.parametrize("name", FIELDS_OUT_OF_RANGE)
def test_a_field_out_of_range_is_refused_even_with_a_valid_crc(name: str) -> None:
    offset, *values = FIELDS_OUT_OF_RANGE[name]
    packet = bytearray(PACKETS[1])
    assert list(find_packets(mended(packet))), "the packet is valid before the change"
    packet[offset:offset + len(values)] = bytes(values)
    assert not list(find_packets(mended(packet)))


def test_unsupported_streams_say_so() -> None:
    with pytest.raises(UnsupportedStream, match="format 2"):
        scan(b"RMH2" + bytes(100))
    colour_12_bit = bytearray(PACKETS[1])
    colour_12_bit[28] = 11 | 32
    with pytest.raises(UnsupportedStream, match="12-bit colour"):
        scan(mended(colour_12_bit))


def test_a_newer_minor_version_may_append_fields() -> None:
    end = HEADER_BYTES + DETAILS_BYTES
    longer = PACKETS[0][:end] + b"more" + PACKETS[0][end:]
    longer = longer[:10] + bytes([longer[10] + 4]) + longer[11:HEADER_BYTES] + bytes([DETAILS_BYTES + 4, 1]) + longer[HEADER_BYTES + 2:]
    scanned = scan(mended(bytearray(longer)) + PACKETS[1])
    assert (scanned.header.profile, scanned.bands) == ("rover-m", {band: scan(STREAM).bands[band] for band in (0, 1)})


@pytest.mark.parametrize("size", [0, DETAILS_BYTES - 1, 255])
def test_details_shorter_than_they_are_or_longer_than_the_payload_are_no_packet(size: int) -> None:
    packet = bytearray(PACKETS[0])
    packet[HEADER_BYTES] = size
    assert not list(find_packets(mended(packet)))
    assert not list(find_packets(mended(bytearray(PACKETS[0][:10] + bytes(2) + PACKETS[0][12:HEADER_BYTES])))), "no payload at all"


@pytest.mark.parametrize("profile", [b"\x1b[2J", b"rov\xf6r", b"a\0b", b"tab\t"])
def test_a_profile_that_is_not_printable_is_not_used(profile: bytes) -> None:
    """What it may do to a terminal is no part of a stream."""
    header = bytearray(PACKETS[0])
    header[HEADER_BYTES + 2:HEADER_BYTES + 10] = profile.ljust(8, b"\0")
    scanned = scan(mended(header) + PACKETS[1])
    assert (scanned.header.profile, scanned.details_intact, list(scanned.bands)) == ("", False, [0, 1])


def test_reference_sections_need_a_newer_reader() -> None:
    sectioned = bytearray(PACKETS[1])
    sectioned[31] |= 0x10
    scanned = scan(PACKETS[0] + mended(sectioned))
    assert scanned.unsupported == (1,) and scanned.lost == (1, 2)
    assert scan(mended(sectioned)).lost == (0, 1, 2)                    # FORMAT 2.2: without reference kind 2 the band is lost
    sectioned[32] = REFERENCE_EARLIER
    with pytest.raises(UnsupportedStream, match="earlier image"):
        scan(mended(sectioned))


def test_reference_fields() -> None:
    header = header_of(100, reference_kind=REFERENCE_BANK, semantic=3, texture=255, bank_hash=BANK)
    assert scan(pack_stream(header, bands_of(1))).header.bank_hash == BANK
    earlier = header_of(100, reference_kind=REFERENCE_EARLIER, bank_hash=BANK, earlier_image=b"earlier!")
    assert scan(pack_stream(earlier, bands_of(1))).header.earlier_image == b"earlier!"


def test_the_pixel_limit_holds_before_anything_is_allocated() -> None:
    header = header_of(8000, width=9000)
    stream = pack_stream(header, bands_of(header.bands))
    with pytest.raises(UnsupportedStream, match="9000x8000"):
        scan(stream)
    assert scan(stream, 72_000_000).header.width == 9000


@pytest.mark.parametrize(("data", "message"), [(b"", "empty"), (b"\x89PNG\r\n\x1a\n" + bytes(99), "not a remac stream"),
                                               (STREAM[:60], "no intact packet"), (PACKETS[1][:-1], "no intact packet")])
def test_nothing_valid_left(data: bytes, message: str) -> None:
    with pytest.raises(CorruptStream, match=message):
        scan(data)


def test_hostile_files_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync markers everywhere, each claiming a long payload: a reader that checks a CRC at each of them takes hours."""
    hashed = 0

    def counting(data: bytes, value: int = 0) -> int:
        nonlocal hashed
        hashed += len(data)
        return crc ^ 1 if (crc := struct.unpack_from("<I", claim, 36)[0]) else 1

    monkeypatch.setattr(packets, "crc32c", counting)
    claim = bytearray(PACKETS[1][:HEADER_BYTES])
    claim[10:12] = struct.pack("<H", PAYLOAD_MAX)
    hostile = bytes(claim) * 5000
    with pytest.raises(CorruptStream):
        scan(hostile)
    assert 0 < hashed <= 10 * len(hostile) + packets._FAILED_CRC_FLOOR


@given(st.binary(max_size=300), st.integers(0, len(STREAM)), st.integers(0, len(STREAM)))
@settings(max_examples=200)
def test_splices_never_crash(rubbish: bytes, start: int, end: int) -> None:
    try:
        scanned = scan(STREAM[:start] + rubbish + STREAM[end:])
    except (CorruptStream, UnsupportedStream):
        return
    assert set(scanned.bands) | set(scanned.lost) == set(range(scanned.header.bands))
    assert all(payload == bands_of(3)[band] for band, payload in scanned.bands.items())
