"""Bad streams: what each breaks, and what every decoder must make of it: an error of a class, or the bands that are lost while the others decode.

All come from one scene of three bands. A field is broken in all packets where they share it (nothing valid is left), else in the packet of band 1
alone. Every other CRC fits, so that the rule under test is what catches the stream.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conformance.writer import Coded, Parts, Scene, join, parts_of, raw_packet
from remac_runtime import reference_coder
from remac_runtime.errors import CorruptStream, RemacError, UnsupportedStream, WrongModel
from remac_runtime.format import LANES_LOG2_MAX, MOSAICS, SIDE_MAX, SYMBOL_LIMIT
from remac_runtime.reference_packets import FIRST_SYNC, HEADER_BYTES, PAYLOAD_MAX, REFERENCE_SECTION, crc32c, write_packet

BANDS = 3


@dataclass(frozen=True)
class Bad:
    """What is wrong, the rules that say so, the error or the lost bands, and how a scene becomes the stream."""

    covers: str
    rules: tuple[str, ...]
    error: type[RemacError] | None
    lost: tuple[int, ...]
    make: Callable[[Scene], bytes]


BAD: dict[str, Bad] = {}
Make = Callable[[Scene], bytes]


def _enter(name: str, covers: str, rules: tuple[str, ...], make: Make, error: type[RemacError] | None = None, lost: tuple[int, ...] = ()) -> None:
    assert name not in BAD
    BAD[name] = Bad(covers, rules, error, lost, make)


def fails(error: type[RemacError], covers: str, *rules: str) -> Callable[[Make], Make]:
    """Enter a function whose stream as a whole is refused."""
    def enter(make: Make) -> Make:
        _enter(make.__name__, covers, rules, make, error=error)
        return make
    return enter


def loses(lost: tuple[int, ...], covers: str, *rules: str) -> Callable[[Make], Make]:
    """Enter a function whose stream decodes but for the lost bands."""
    def enter(make: Make) -> Make:
        _enter(make.__name__, covers, (*rules, "2.3 lost", "2.3 reported"), make, lost=lost)
        return make
    return enter


# ---- nothing to decode

@fails(CorruptStream, "no bytes at all", "2.3 sync and crc")
def empty(scene: Scene) -> bytes:
    return b""


@fails(CorruptStream, "syncs and nothing else", "2.3 sync and crc", "2 sync")
def only_syncs(scene: Scene) -> bytes:
    return b"RMH1RMP1" * 40


@fails(CorruptStream, "the first packet cut off in its last byte", "2.3 sync and crc", "2 length")
def cut_short(scene: Scene) -> bytes:
    return write_packet(*scene.packets[0])[:-1]


@fails(CorruptStream, "every CRC wrong in one bit", "2 crc", "2 crc-32c")
def all_crcs(scene: Scene) -> bytes:
    return b"".join(data[:36] + bytes([data[36] ^ 1]) + data[37:] for data in (write_packet(*packet) for packet in scene.packets))


@fails(CorruptStream, "CRCs of the payload alone", "2 crc")
def crc_of_payload(scene: Scene) -> bytes:
    return b"".join(data[:36] + crc32c(data[HEADER_BYTES:]).to_bytes(4, "little") + data[HEADER_BYTES:]
                    for data in (write_packet(*packet) for packet in scene.packets))


# ---- fields that all packets share

def _all(**fields: object) -> Make:
    return lambda scene: join((header._replace(**fields), payload) for header, payload in scene.packets)  # type: ignore[arg-type]


def _none(**fields: object) -> Make:
    """Without references, but for the fields given."""
    return _all(**{"reference_kind": 0, "bank_tag": bytes(4), "semantic": 255, "texture": 255, **fields})


def _shared_fields() -> None:
    samples = ("2 sample", "3 companding")
    beyond: tuple[tuple[str, str, Make, tuple[str, ...]], ...] = (
        ("width_0", "a width of 0", _all(width=0), ("2 width",)), ("height_0", "a height of 0", _all(height=0), ("2 height",)),
        ("width_16385", f"a width of {SIDE_MAX + 1}", _all(width=SIDE_MAX + 1), ("2 width", "1 SIDE_MAX")),
        ("height_16385", f"a height of {SIDE_MAX + 1}", _all(height=SIDE_MAX + 1), ("2 height", "1 SIDE_MAX")),
        ("sample_bit_7", "bit 7 of the sample format", _all(sample=7 | 128), ("2 sample",)),
        ("band_units_0", "bands of 0 rows", _all(band_units=0), ("2 band_units",)),
        ("reference_kind_3", "reference kind 3", _all(reference_kind=3), ("2 reference_kind",)),
        ("tag_without_bank", "a bank tag without references", _none(bank_tag=b"bank"), ("2 bank_tag",)),
        ("semantic_without_bank", "a semantic entry without references", _none(semantic=0), ("2 semantic",)),
        ("texture_without_bank", "a texture entry without references", _none(texture=0), ("2 texture",)),
        ("mosaic_5", "mosaic 5", _all(mosaic=MOSAICS), ("2 mosaic", "1 MOSAICS")))
    for name, covers, make, rules in beyond:
        _enter(name, f"{covers}: no packet is valid", (*rules, "2.3 range"), make, error=CorruptStream)
    unsupported: tuple[tuple[str, str, Make, tuple[str, ...]], ...] = (
        ("depth_7", "7-bit samples", _all(sample=6), samples), ("depth_8_companded", "8-bit companded samples", _all(sample=7 | 32), samples),
        ("depth_12_linear", "12-bit grey without companding", _all(sample=11 | 16), samples),
        ("depth_12_colour", "12-bit companded colour", _all(sample=11 | 32), samples),
        ("companding_2", "12-bit grey with companding 2", _all(sample=11 | 16 | 64), samples),
        ("companding_3", "12-bit grey with companding 3", _all(sample=11 | 16 | 96), samples),
        ("mosaic_grey", "a mosaic of a grey picture", _all(sample=7 | 16, mosaic=1), ("2 mosaic", "3.1 undefined")),
        ("mosaic_deep", "a mosaic of 12-bit grey", _all(sample=11 | 16 | 32, mosaic=4), ("2 mosaic", "3.1 undefined")),
        ("mosaic_narrow", "a mosaic of a picture of 3 columns", _all(width=3, mosaic=2), ("2 mosaic", "1 MOSAIC_SIDE_MIN", "3.1 undefined")),
        ("reference_kind_2", "reference kind 2, with its 26 bytes of details", _earlier, ("2 reference_kind",)),
        ("major_0", "major version 0", _version(b"0"), ("2 sync",)), ("major_2", "major version 2", _version(b"2"), ("2 sync",)))
    for name, covers, make, rules in unsupported:
        _enter(name, covers, (*rules, "2.3 unsupported"), make, error=UnsupportedStream)
    _enter("other_codec", "the tag of another network", ("2 codec_tag", "2.3 tags decide"), _all(codec_tag=b"else"), error=WrongModel)
    _enter("other_bank", "the tag of another bank", ("2 bank_tag", "2.3 tags decide"), _all(bank_tag=b"else"), error=WrongModel)
    _enter("semantic_beyond", "a semantic entry beyond the bank", ("2.3 semantic beyond", "2 semantic"),
           lambda scene: _all(semantic=len(scene.bank or ()))(scene), error=CorruptStream)  # type: ignore[arg-type]


def _version(digit: bytes) -> Make:
    return lambda scene: join((header._replace(sync=header.sync[:3] + digit), payload) for header, payload in scene.packets)


def _earlier(scene: Scene) -> bytes:
    (first, _), *others = ((header._replace(reference_kind=2), payload) for header, payload in scene.packets)
    return join([(first, bytes([len(scene.details) + 8]) + scene.details[1:] + bytes(range(8)) + scene.parts[0]), *others])


_shared_fields()


# ---- one packet

def _with(scene: Scene, *replacement: bytes) -> bytes:
    """The stream with other bytes in the place of the packet of band 1."""
    first, _, last = (write_packet(*packet) for packet in scene.packets)
    return b"".join([first, *replacement, last])


def _field(**fields: object) -> Make:
    """Band 1 with other fields and a CRC that fits."""
    return lambda scene: _with(scene, write_packet(scene.packets[1][0]._replace(**fields), scene.packets[1][1]))  # type: ignore[arg-type]


def _damaged(at: int) -> Make:
    def make(scene: Scene) -> bytes:
        data = bytearray(write_packet(*scene.packets[1]))
        data[at] ^= 0x20
        return _with(scene, bytes(data))
    return make


def _packet_fields() -> None:
    cases: tuple[tuple[str, str, Make, tuple[str, ...]], ...] = (
        ("header_byte", "a byte of the header of a packet changed", _damaged(8), ("2 crc", "2.3 sync and crc")),
        ("payload_byte", "a byte of the payload of a packet changed", _damaged(HEADER_BYTES + 20), ("2 crc", "2.3 sync and crc")),
        ("sync_byte", "a byte of the sync of a packet changed", _damaged(3), ("2 sync", "2.3 sync and crc")),
        ("sync_of_first", "the first packet's sync in another band", _field(sync=FIRST_SYNC), ("2 sync", "2.3 range")),
        ("packet_lost", "a packet is missing", _with, ("2 subset",)),
        ("quality_64", "quality 64", _field(quality=64), ("2 quality", "2.3 range", "1 QUALITIES")),
        ("lanes_512", "512 lanes", _field(coder=LANES_LOG2_MAX + 1), ("2 coder", "2.3 range", "1 LANES_LOG2_MAX")),
        ("coder_bit_5", "bit 5 of the coder field", _field(coder=32), ("2 coder", "2.3 range")),
        ("coder_bit_7", "bit 7 of the coder field", _field(coder=128), ("2 coder", "2.3 range")),
        ("band_beyond", "a band number beyond the picture", _field(band=BANDS), ("2 band", "2.3 range")),
        ("fragment_beyond", "fragment 1 of 1", _field(fragment=1), ("2 fragment", "2.3 range")),
        ("fragments_0", "0 fragments", _field(fragments=0), ("2 fragments", "2.3 range")),
        ("packet_mosaic_5", "mosaic 5 in one packet", _field(mosaic=MOSAICS), ("2 mosaic", "1 MOSAICS", "2.3 range")),
        ("reference_section", "a reference section without reference kind 2", _field(coder=REFERENCE_SECTION), ("2 coder", "2.2 reference section")),
        ("other_image", "a packet with another image id", _field(image_id=1), ("2 image_id", "2.3 foreign")),
        ("other_width", "a packet with another width", _field(width=65), ("2 width", "2.3 foreign")),
        ("other_mosaic", "a packet with another mosaic", _field(mosaic=1), ("2 mosaic", "2.3 foreign")),
        ("other_texture", "a packet with another texture reference", _field(texture=200), ("2 texture", "2.3 foreign")),
        ("other_sample", "a packet with another sample format", _field(sample=7 | 16), ("2 sample", "2.3 foreign")))
    for name, covers, make, rules in cases:
        _enter(name, covers, (*rules, "2.3 lost", "2.3 reported"), make, lost=(1,))


_packet_fields()


@loses((2,), "a length that passes the end of the stream", "2 length")
def length_beyond(scene: Scene) -> bytes:
    *others, (header, payload) = scene.packets
    return join(others) + raw_packet(header._replace(length=len(payload) + 1), payload)


@loses((2,), "a length that leaves the last byte of the payload out", "2 length", "2 crc")
def length_short(scene: Scene) -> bytes:
    *others, (header, payload) = scene.packets
    return join(others) + raw_packet(header._replace(length=len(payload) - 1), payload)


@loses((2,), "a payload of 65,496 bytes, one more than a packet holds", "2 length", "1 PACKET_MAX", "2.3 range")
def length_65496(scene: Scene) -> bytes:
    *others, (header, payload) = scene.packets
    filled = payload + bytes(PAYLOAD_MAX + 1 - len(payload))
    return join(others) + raw_packet(header._replace(length=len(filled)), filled)


@loses((1, 2), "the stream is cut off in the packet of band 1", "2.3 sync and crc")
def truncated(scene: Scene) -> bytes:
    return join(scene.packets)[:-len(write_packet(*scene.packets[2])) - 5]


@loses((0,), "the first packet is missing, and the details with it", "2 subset")
def first_lost(scene: Scene) -> bytes:
    return join(scene.packets[1:])


@loses((0, 1, 2), "reference sections in all bands, without reference kind 2", "2.2 reference section")
def all_reference_sections(scene: Scene) -> bytes:
    return join((header._replace(coder=REFERENCE_SECTION), payload) for header, payload in scene.packets)


@loses((1, 2), "the first packet alone", "2 subset")
def first_only(scene: Scene) -> bytes:
    return join(scene.packets[:1])


@loses(tuple(range(1, SIDE_MAX // 64)), f"the first packet alone of a picture of 1x{SIDE_MAX}, the largest height", "2 height", "1 SIDE_MAX")
def height_16384(scene: Scene) -> bytes:
    header, payload = scene.packets[0]
    return join([(header._replace(width=1, height=SIDE_MAX), payload)])


@loses((1, 2), "the first valid packet is of another picture: its image decodes, of which there is band 0 alone", "2.3 foreign", "2 image_id")
def first_decides(scene: Scene) -> bytes:
    header, payload = scene.packets[0]
    return join([(header._replace(image_id=7), payload), *scene.packets])


# ---- fragments

@loses((1,), "fragment 1 of 2, without fragment 0", "2 fragments", "2.2 fragments")
def fragment_missing(scene: Scene) -> bytes:
    return _field(fragments=2, fragment=1)(scene)


@loses((1,), "a band in two fragments of which the first is not of full length", "2.2 full fragments", "2 fragment")
def fragment_short(scene: Scene) -> bytes:
    header, payload = scene.packets[1]
    return _with(scene, *(write_packet(header._replace(fragments=2, fragment=i), part) for i, part in enumerate((payload[:20], payload[20:]))))


def _before(scene: Scene, **fields: object) -> bytes:
    """A packet of band 1 that claims something else, then the right one."""
    header, payload = scene.packets[1]
    return _with(scene, write_packet(header._replace(**fields), scene.packets[2][1]), write_packet(header, payload))  # type: ignore[arg-type]


@loses((1,), "a first packet that claims two fragments: the whole one after it disagrees and is left out", "2.2 first counts", "2 fragments")
def first_claims_fragments(scene: Scene) -> bytes:
    return _before(scene, fragments=2, fragment=1)


@loses((1,), "a first packet with a reference section: the one after it disagrees and is left out", "2.2 first counts", "2.2 reference section")
def first_claims_coder(scene: Scene) -> bytes:
    return _before(scene, coder=REFERENCE_SECTION)


@loses((1,), "the first copy of a packet is of noise: it counts", "2.2 first counts")
def first_copy_wrong(scene: Scene) -> bytes:
    header, payload = scene.packets[1]
    return _with(scene, write_packet(header, bytes(len(payload))), write_packet(header, payload))


# ---- the coded band (one lane)

def _payload(change: Callable[[Parts], bytes]) -> Make:
    """Band 1 with its payload put together from other parts."""
    def make(scene: Scene) -> bytes:
        header, _ = scene.packets[1]
        return _with(scene, write_packet(header._replace(coder=0), change(parts_of(scene.symbols[1]))))
    return make


def _band(change: Callable[[Coded], Coded], bits: str | None = None) -> Make:
    """Band 1 with other symbols; `bits` replaces the escape bits of the last one."""
    def make(scene: Scene) -> bytes:
        coded = change(scene.symbols[1])
        parts = parts_of(coded)
        if bits is not None:
            parts = parts._replace(bits=parts.bits[:-len(reference_coder.escape_bits(*coded[-1]))] + bits)
        return _with(scene, write_packet(scene.packets[1][0]._replace(coder=0), parts.payload()))
    return make


def _first(k: int) -> Callable[[Coded], Coded]:
    """The first symbol, which is of z, another one."""
    return lambda coded: [(coded[0][0], k), *coded[1:]]


def _last(k: int) -> Callable[[Coded], Coded]:
    """The last symbol, which is no other's context, another one."""
    return lambda coded: [*coded[:-1], (coded[-1][0], k)]


def _lanes(claimed: int, written: int, size: int | None = None) -> Make:
    """Band 1 with 2^written lanes where its packet claims 2^claimed, cut to `size` bytes."""
    def make(scene: Scene) -> bytes:
        payload = reference_coder.encode_symbols(scene.symbols[1], written)[:size]
        return _with(scene, write_packet(scene.packets[1][0]._replace(coder=claimed), payload))
    return make


def _bands() -> None:
    fill = ("6.3 fill", "6.2 layout")
    cases: tuple[tuple[str, str, Make, tuple[str, ...]], ...] = (
        ("band_empty", "a band of no bytes", _payload(lambda p: b""), ("6.2 layout", "2.2 coded band")),
        ("band_of_states", "a band of its states alone", _payload(lambda p: p.states), ("6.2 decode",)),
        ("states_missing", "four lanes, but a byte too few for their states", _lanes(2, 2, size=15), ("6.2 layout",)),
        ("state_low", "a state of 2^16 - 1 at the start", _payload(lambda p: b"\xff\xff\0\0" + p.words), ("6.2 first state", "1 STATE_LOW")),
        ("state_end", "a symbol more than the band has: the last state is not 2^16", _band(lambda coded: [*coded, coded[-1]]), ("6.2 last state",)),
        ("word_missing", "the last word is missing", _payload(lambda p: p._replace(words=p.words[:-2]).payload()), fill),
        ("word_extra", "a word more", _payload(lambda p: p._replace(words=p.words + b"\0\0").payload()), fill),
        ("byte_extra", "a byte more", _payload(lambda p: p._replace(words=p.words + b"\0").payload()), fill),
        ("lanes_wrong", "a band of four lanes that claims two", _lanes(1, 2), ("6.2 lanes", "2 coder")),
        ("escape_missing", "an escape without its bits", _band(_last(SYMBOL_LIMIT - 1), bits=""), ("6.3 escape bits", "6.3 fill")),
        ("escape_zeros_21", "an escape of 21 zero bits", _band(_last(SYMBOL_LIMIT - 1), bits="0" + "0" * 21 + "1" + "0" * 21), ("6.3 limits",)),
        ("escape_endless", "an escape of zero bits up to the states", _band(_last(SYMBOL_LIMIT - 1), bits="0" * 400), ("6.3 limits",)),
        ("symbol_2_20", "a symbol of 2^20", _band(_last(SYMBOL_LIMIT)), ("6.3 limits", "1 SYMBOL_LIMIT")),
        ("symbol_minus_2_20", "a symbol of -2^20", _band(_last(-SYMBOL_LIMIT)), ("6.3 limits", "1 SYMBOL_LIMIT")),
        ("z_256", "a hyper-latent of 256", _band(_first(256)), ("6.3 limits", "6.1 order")),
        ("z_minus_1", "a hyper-latent of -1", _band(_first(-1)), ("6.3 limits", "6.1 order")))
    for name, covers, make, rules in cases:
        _enter(name, covers, (*rules, "2.3 lost"), make, lost=(1,))


_bands()
