/* ---- packets (FORMAT 2) ---- */

static void put_u16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value & 0xFFu);
    at[1] = (uint8_t)(value >> 8 & 0xFFu);
}

static void put_u32(uint8_t *at, uint32_t value)
{
    put_u16(at, value & 0xFFFFu);
    put_u16(at + 2, value >> 16);
}

static remac_flight_status deliver(const remac_flight *e, uint32_t offset, const uint8_t *data, uint32_t size)
{
    return e->sink.write(e->sink.context, offset, data, size) == 0 ? REMAC_FLIGHT_OK : REMAC_FLIGHT_OUTPUT_REFUSED;
}

/* The 36 bytes of a packet's header in front of its CRC. */
static void fill_header(const remac_flight *e, uint32_t image_id, uint32_t sequence, const flight_record *packet, uint8_t *header)
{
    const remac_flight_config *const c = &e->config;
    const uint32_t deep = c->depth > 8u ? 1u : 0u, grey = c->grey != 0u ? 1u : 0u;
    const uint32_t referenced = c->references != REMAC_FLIGHT_REFERENCES_NONE ? 1u : 0u;
    memcpy(header, sequence == 0u ? "RMH1" : "RMP1", 4);
    put_u32(header + 4, image_id);
    put_u16(header + 8, sequence);
    put_u16(header + 10, packet->length);
    put_u16(header + 12, packet->band);
    header[14] = packet->fragment;
    header[15] = packet->fragments;
    memcpy(header + 16, CODEC_HASH, 4);
    memset(header + 20, 0, 4);
#if REMAC_FLIGHT_BANK
    if (referenced != 0u)
        memcpy(header + 20, BANK_HASH, 4);
#endif
    put_u16(header + 24, c->width);
    put_u16(header + 26, c->height);
    header[28] = (uint8_t)((c->depth - 1u) | grey << 4 | deep << 5);
    header[29] = (uint8_t)(c->band_rows / REMAC_FLIGHT_BAND_UNIT);
    header[30] = packet->quality;
    header[31] = packet->coder;
    header[32] = (uint8_t)referenced;
    header[33] = (uint8_t)e->semantic;
    header[34] = (uint8_t)e->texture;
    header[35] = (uint8_t)c->mosaic;
}

/* FORMAT 2.1. */
static void fill_details(const remac_flight *e, uint8_t *details)
{
    memset(details, 0, REMAC_FLIGHT_DETAILS_BYTES);
    details[0] = REMAC_FLIGHT_DETAILS_BYTES;
    memcpy(details + 2, PROFILE, 8);
    memcpy(details + 10, CODEC_HASH + 4, 4);
#if REMAC_FLIGHT_BANK
    if (e->config.references != REMAC_FLIGHT_REFERENCES_NONE)
        memcpy(details + 14, BANK_HASH + 4, 4);
#else
    (void)e;
#endif
}

/* Bytes that a band takes in the payloads of its packets; the first one's has the details, too. */
static size_t payload_bytes(uint32_t band, size_t size)
{
    return size + (band == 0u ? REMAC_FLIGHT_DETAILS_BYTES : 0u);
}

static size_t fragments_of(uint32_t band, size_t size)
{
    return (payload_bytes(band, size) + REMAC_FLIGHT_PAYLOAD_MAX - 1u) / REMAC_FLIGHT_PAYLOAD_MAX;
}

/* Writes one band and counts its packets. With image id 0 where FORMAT 2.2's is wanted; `sign_packets` mends that. */
static remac_flight_status write_band(remac_flight *e, uint32_t band, uint32_t lanes_log2, const uint8_t *payload, uint32_t size)
{
    const size_t fragments = fragments_of(band, size);
    uint8_t header[REMAC_FLIGHT_HEADER_BYTES + REMAC_FLIGHT_DETAILS_BYTES], crc[4];
    uint32_t start = 0;
    remac_flight_status status = REMAC_FLIGHT_OK;
    for (size_t fragment = 0; fragment < fragments && status == REMAC_FLIGHT_OK; fragment++) {
        const uint32_t details = e->sequence == 0u ? REMAC_FLIGHT_DETAILS_BYTES : 0u, room = REMAC_FLIGHT_PAYLOAD_MAX - details;
        const uint32_t part = size - start < room ? size - start : room;
        flight_record *const packet = &e->records[e->sequence];
        packet->length = (uint16_t)(details + part);
        packet->band = (uint16_t)band;
        packet->fragment = (uint8_t)fragment;
        packet->fragments = (uint8_t)fragments;
        packet->quality = (uint8_t)e->quality;
        packet->coder = (uint8_t)lanes_log2;
        fill_header(e, e->config.has_image_id != 0u ? e->config.image_id : 0u, e->sequence, packet, header);
        if (details > 0u)
            fill_details(e, header + REMAC_FLIGHT_HEADER_BYTES);
        packet->crc = remac_crc32c(remac_crc32c(0, header, 36), header + REMAC_FLIGHT_HEADER_BYTES, details);
        packet->crc = remac_crc32c(packet->crc, payload + start, part);
        put_u32(header + 36, packet->crc);
        status = deliver(e, e->offset, header, REMAC_FLIGHT_HEADER_BYTES + details);
        if (status == REMAC_FLIGHT_OK)
            status = deliver(e, e->offset + REMAC_FLIGHT_HEADER_BYTES + details, payload + start, part);
        e->offset += REMAC_FLIGHT_HEADER_BYTES + details + part;
        e->sequence++;
        start += part;
    }
    put_u32(crc, remac_crc32c(0, payload, size));
    e->payload_crcs = remac_crc32c(e->payload_crcs, crc, 4);
    return status;
}

/* a * b modulo the polynomial of CRC-32C over GF(2); bit 31 is the coefficient of x^0. */
static uint32_t multiply_polynomials(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (uint32_t bit = 0; bit < 32u; bit++) {
        if ((a << bit & 0x80000000u) != 0u)
            product ^= b;
        b = (b & 1u) != 0u ? b >> 1 ^ 0x82F63B78u : b >> 1;
    }
    return product;
}

/* What `value` in a CRC register becomes when `count` < 2^17 zero bytes follow: value * x^(8 count). */
static uint32_t advance_zeros(uint32_t value, uint32_t count)
{
    uint32_t power = 0x00800000u; /* x^8 */
    for (uint32_t bit = 0; bit < 17u; bit++) {
        if ((count >> bit & 1u) != 0u)
            value = multiply_polynomials(value, power);
        power = multiply_polynomials(power, power);
    }
    return value;
}

/* Gives every packet its image id. The CRC is linear: id instead of 0 in bytes 4..7 adds what these four bytes alone leave in an empty register after
 * the zeros behind them, so that the payload is not needed again. */
static remac_flight_status sign_packets(remac_flight *e, uint32_t image_id)
{
    uint8_t header[REMAC_FLIGHT_HEADER_BYTES], id[4];
    uint32_t offset = 0;
    remac_flight_status status = REMAC_FLIGHT_OK;
    put_u32(id, image_id);
    const uint32_t left = ~remac_crc32c(0xFFFFFFFFu, id, 4);
    for (uint32_t sequence = 0; sequence < e->sequence && status == REMAC_FLIGHT_OK; sequence++) {
        const flight_record *const packet = &e->records[sequence];
        fill_header(e, image_id, sequence, packet, header);
        put_u32(header + 36, packet->crc ^ advance_zeros(left, 28u + packet->length));
        status = deliver(e, offset, header, REMAC_FLIGHT_HEADER_BYTES);
        offset += REMAC_FLIGHT_HEADER_BYTES + packet->length;
    }
    return status;
}

static remac_flight_status finish_stream(remac_flight *e, remac_flight_result *result)
{
    const uint32_t image_id = e->config.has_image_id != 0u ? e->config.image_id : e->payload_crcs;
    const remac_flight_status status = e->config.has_image_id != 0u ? REMAC_FLIGHT_OK : sign_packets(e, image_id);
    if (status == REMAC_FLIGHT_OK && result != NULL) {
        result->bytes = e->offset;
        result->packets = e->sequence;
        result->bands = e->bands;
        result->quality = e->quality;
        result->semantic = e->semantic;
        result->texture = e->texture;
        result->image_id = image_id;
    }
    return status;
}

int32_t remac_flight_to_buffer(void *context, uint32_t offset, const uint8_t *data, uint32_t size)
{
    const remac_flight_buffer *const buffer = context;
    if (offset > buffer->room || size > buffer->room - offset)
        return 1;
    memcpy(buffer->data + offset, data, size);
    return 0;
}
