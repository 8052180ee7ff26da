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
static void fill_header(const remac_flight *e, const char *sync, uint32_t image_id, uint32_t sequence, const flight_record *packet, uint8_t *header)
{
    const remac_flight_config *const c = &e->config;
    const uint32_t deep = c->depth > 8u ? 1u : 0u, grey = c->grey != 0u ? 1u : 0u;
    const uint32_t referenced = c->references != REMAC_FLIGHT_REFERENCES_NONE ? 1u : 0u;
    memcpy(header, sync, 4);
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
    header[35] = 0;
}

/* Writes one band and counts its packets. With image id 0 where FORMAT 2.2's is wanted; `sign_packets` mends that. */
static remac_flight_status write_band(remac_flight *e, uint32_t band, uint32_t lanes_log2, const uint8_t *payload, uint32_t size)
{
    const uint32_t fragments = size > 0u ? (size + REMAC_FLIGHT_PAYLOAD_MAX - 1u) / REMAC_FLIGHT_PAYLOAD_MAX : 1u;
    uint8_t header[REMAC_FLIGHT_HEADER_BYTES], crc[4];
    remac_flight_status status = REMAC_FLIGHT_OK;
    for (uint32_t fragment = 0; fragment < fragments && status == REMAC_FLIGHT_OK; fragment++) {
        const uint32_t start = fragment * REMAC_FLIGHT_PAYLOAD_MAX, left = size - start;
        const uint32_t length = left < REMAC_FLIGHT_PAYLOAD_MAX ? left : REMAC_FLIGHT_PAYLOAD_MAX;
        flight_record *const packet = &e->records[e->sequence - 1u];
        packet->length = (uint16_t)length;
        packet->band = (uint16_t)band;
        packet->fragment = (uint8_t)fragment;
        packet->fragments = (uint8_t)fragments;
        packet->quality = (uint8_t)e->quality;
        packet->coder = (uint8_t)lanes_log2;
        fill_header(e, "RMP1", e->config.has_image_id != 0u ? e->config.image_id : 0u, e->sequence, packet, header);
        packet->crc = remac_crc32c(remac_crc32c(0, header, 36), payload + start, length);
        put_u32(header + 36, packet->crc);
        status = deliver(e, e->offset, header, REMAC_FLIGHT_HEADER_BYTES);
        if (status == REMAC_FLIGHT_OK)
            status = deliver(e, e->offset + REMAC_FLIGHT_HEADER_BYTES, payload + start, length);
        e->offset += REMAC_FLIGHT_HEADER_BYTES + length;
        e->sequence++;
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
    uint32_t offset = REMAC_FLIGHT_HEADER_PACKET;
    remac_flight_status status = REMAC_FLIGHT_OK;
    put_u32(id, image_id);
    const uint32_t left = ~remac_crc32c(0xFFFFFFFFu, id, 4);
    for (uint32_t sequence = 1; sequence < e->sequence && status == REMAC_FLIGHT_OK; sequence++) {
        const flight_record *const packet = &e->records[sequence - 1u];
        fill_header(e, "RMP1", image_id, sequence, packet, header);
        put_u32(header + 36, packet->crc ^ advance_zeros(left, 28u + packet->length));
        status = deliver(e, offset, header, REMAC_FLIGHT_HEADER_BYTES);
        offset += REMAC_FLIGHT_HEADER_BYTES + packet->length;
    }
    return status;
}

/* FORMAT 2.1; the end of the stream, though it stands in front. */
static remac_flight_status finish_stream(remac_flight *e, remac_flight_result *result)
{
    uint8_t packet[REMAC_FLIGHT_HEADER_PACKET];
    const flight_record fields = {0, REMAC_FLIGHT_HEADER_PACKET - REMAC_FLIGHT_HEADER_BYTES, (uint16_t)e->bands, 0, 1, (uint8_t)e->quality, 0};
    const uint32_t image_id = e->config.has_image_id != 0u ? e->config.image_id : e->payload_crcs;
    uint8_t *const details = packet + REMAC_FLIGHT_HEADER_BYTES;
    remac_flight_status status = REMAC_FLIGHT_OK;
    if (e->config.has_image_id == 0u)
        status = sign_packets(e, image_id);
    fill_header(e, "RMH1", image_id, 0, &fields, packet);
    memset(details, 0, REMAC_FLIGHT_HEADER_PACKET - REMAC_FLIGHT_HEADER_BYTES);
    details[0] = 1; /* major */
    put_u16(details + 2, e->sequence);
    memcpy(details + 4, PROFILE, 8);
    memcpy(details + 12, CODEC_HASH, 8);
#if REMAC_FLIGHT_BANK
    if (e->config.references != REMAC_FLIGHT_REFERENCES_NONE)
        memcpy(details + 20, BANK_HASH, 8);
#endif
    put_u32(packet + 36, remac_crc32c(remac_crc32c(0, packet, 36), details, REMAC_FLIGHT_HEADER_PACKET - REMAC_FLIGHT_HEADER_BYTES));
    if (status == REMAC_FLIGHT_OK)
        status = deliver(e, 0, packet, REMAC_FLIGHT_HEADER_PACKET);
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
