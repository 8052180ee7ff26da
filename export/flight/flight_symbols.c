/* SPDX-License-Identifier: MIT */
/*
 * A test program: decodes a stream of the flight encoder to its latents with the encoder's own constants and layers. Undamaged streams only; the
 * ground segment's decoder is another one.
 *
 *     flight_symbols IN.rmc OUT      y_hat, little-endian int32[padded height / 16][padded width / 16][latents], to OUT
 */
#define REMAC_FLIGHT_TOOLS
#include "remac_flight.c"

#include <stdio.h>
#include <stdlib.h>

#define REQUIRE(holds)                                                                                                                               \
    do {                                                                                                                                             \
        if (!(holds)) {                                                                                                                              \
            fprintf(stderr, "flight_symbols: line %d: damaged or foreign stream, or no memory\n", __LINE__);                                         \
            exit(1);                                                                                                                                 \
        }                                                                                                                                            \
    } while (0)

static uint32_t get_u16(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static uint32_t get_u32(const uint8_t *at)
{
    return get_u16(at) | get_u16(at + 2) << 16;
}

static void *allocate(size_t size)
{
    void *const memory = malloc(size > 0 ? size : 1);
    REQUIRE(memory != NULL);
    return memory;
}

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *const file = fopen(path, "rb");
    REQUIRE(file != NULL);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *const data = allocate(*size);
    REQUIRE(fread(data, 1, *size, file) == *size);
    fclose(file);
    return data;
}

/* csrc/remac.h: the entry that holds slot b << 6, for every table. */
static uint16_t *lookup_of(const remac_tables *tables)
{
    uint16_t *const lookup = allocate(tables->count * (size_t)REMAC_LOOKUP_SIZE * sizeof *lookup);
    for (uint32_t t = 0; t < tables->count; t++) {
        const uint16_t *const cdf = tables->cdf + tables->start[t];
        uint16_t entry = 0;
        for (uint32_t b = 0; b < REMAC_LOOKUP_SIZE; b++) {
            while (cdf[entry + 1] <= b << (REMAC_PROBABILITY_BITS - REMAC_LOOKUP_BITS))
                entry++;
            lookup[t * REMAC_LOOKUP_SIZE + b] = entry;
        }
    }
    return lookup;
}

/* An encoder in the state in which it would code bands of this stream. */
static remac_flight *open_encoder(const uint8_t *header, void **work)
{
    static const remac_flight_sink nowhere = {remac_flight_to_buffer, NULL};
    remac_flight_config config;
    remac_flight *e = NULL;
    remac_flight_defaults(&config, get_u16(header + 24), get_u16(header + 26));
    config.band_rows = header[29] * REMAC_FLIGHT_BAND_UNIT;
    config.references = header[32];
    config.semantic = header[33];
    config.texture = header[34];
    const size_t size = (size_t)remac_flight_work_bytes(&config);
    *work = allocate(size);
    REQUIRE(memcmp(header + 16, CODEC_HASH, 4) == 0 && config.references <= REMAC_FLIGHT_REFERENCES_FIXED);
    REQUIRE(remac_flight_begin(&e, *work, size, &config, &nowhere) == REMAC_FLIGHT_OK);
    return e;
}

/* z and the four phases of a band (FORMAT 5.5, 6.1); y_hat is the band's part of the picture. */
static void decode_band(remac_flight *e, const remac_tables *tables, uint32_t number, const uint8_t *data, size_t size, uint32_t lanes,
                        int32_t *y_hat)
{
    static const uint8_t rows_of[4] = {0, 1, 0, 1}, columns_of[4] = {0, 1, 1, 0};
    static remac_decoder decoder;
    const flight_band band = find_band(e, number);
    const size_t columns = 2 * band.columns, hyper = band.rows * band.columns * REMAC_FLIGHT_HYPER;
    const remac_quality q = quality_of(e->quality);
    REQUIRE(remac_decoder_start(&decoder, data, size, lanes) == REMAC_OK);
    const remac_adaptation adaptation = adaptation_of(e);
    for (size_t i = 0; i < hyper; i++) {
        const uint16_t table = hyper_table(e->z, i, band.columns);
        REQUIRE(remac_decode(&decoder, tables, data, size, 1, &table, e->symbols) == REMAC_OK && e->symbols[0] >= 0 && e->symbols[0] <= 255);
        e->z[i] = (uint8_t)e->symbols[0];
    }
    prepare_band(e, &band);
    for (size_t phase = 0; phase < 4; phase++) {
        for (size_t r = 0; r < 2 * band.rows; r++) {
            run_phase_row(e, &band, phase, r);
            remac_scale_level(columns, REMAC_FLIGHT_LATENTS, e->scale, q.scale_offset, e->level);
            REQUIRE(remac_decode_latents(&decoder, tables, data, size, &adaptation, columns, e->level, e->row_symbols) == REMAC_OK);
            remac_dequantise(columns, REMAC_FLIGHT_LATENTS, q.inverse_gain, q.context_shift, e->mean, e->row_symbols, e->y_hat,
                             plane_row_of(e, &band, phase, r));
            for (size_t c = 0; c < columns; c++)
                memcpy(y_hat + ((2 * r + rows_of[phase]) * 2 * columns + 2 * c + columns_of[phase]) * REMAC_FLIGHT_LATENTS,
                       e->y_hat + c * REMAC_FLIGHT_LATENTS, REMAC_FLIGHT_LATENTS * sizeof *y_hat);
        }
    }
    REQUIRE(remac_decoder_finish(&decoder, size) == REMAC_OK);
}

/* Joins the fragments of the band whose first packet is at `at` into `payload`; returns where the next band begins. */
static size_t join(const uint8_t *data, size_t size, size_t at, uint8_t *payload, size_t *length)
{
    const uint32_t fragments = data[at + 15];
    *length = 0;
    for (uint32_t fragment = 0; fragment < fragments; fragment++) {
        REQUIRE(at + REMAC_FLIGHT_HEADER_BYTES < size && memcmp(data + at, at == 0 ? "RMH1" : "RMP1", 4) == 0 && data[at + 14] == fragment);
        const uint8_t *const body = data + at + REMAC_FLIGHT_HEADER_BYTES;
        const size_t bytes = get_u16(data + at + 10), details = at == 0 ? body[0] : 0;
        REQUIRE(details <= bytes && bytes <= size - at - REMAC_FLIGHT_HEADER_BYTES &&
                remac_crc32c(remac_crc32c(0, data + at, 36), body, bytes) == get_u32(data + at + 36));
        memcpy(payload + *length, body + details, bytes - details);
        *length += bytes - details;
        at += REMAC_FLIGHT_HEADER_BYTES + bytes;
    }
    return at;
}

int main(int count, char **arguments)
{
    size_t size = 0, at = 0;
    void *work = NULL;
    REQUIRE(count == 3);
    uint8_t *const data = read_file(arguments[1], &size), *const payload = allocate(size);
    REQUIRE(size > REMAC_FLIGHT_HEADER_BYTES);
    remac_flight *const e = open_encoder(data, &work);
    remac_tables tables = TABLES;
    uint16_t *const lookup = lookup_of(&tables);
    tables.lookup = lookup;
    const size_t row = (size_t)e->width / 16 * REMAC_FLIGHT_LATENTS, values = e->height / 16 * row;
    int32_t *const y_hat = allocate(values * sizeof *y_hat);
    for (uint32_t band = 0; band < e->bands; band++) {
        size_t length = 0;
        const uint8_t *const header = data + at;
        REQUIRE(at + REMAC_FLIGHT_HEADER_BYTES <= size && get_u16(header + 12) == band);
        e->quality = header[30];
        REQUIRE(e->quality < REMAC_FLIGHT_QUALITIES);
        at = join(data, size, at, payload, &length);
        decode_band(e, &tables, band, payload, length, header[31] & 15u, y_hat + 4u * e->band_units * band * row);
    }
    FILE *const file = fopen(arguments[2], "wb");
    REQUIRE(file != NULL);
    for (size_t i = 0; i < values; i++) {
        uint8_t bytes[4];
        put_u32(bytes, (uint32_t)y_hat[i]);
        REQUIRE(fwrite(bytes, 1, 4, file) == 4);
    }
    REQUIRE(fclose(file) == 0);
    free(y_hat);
    free(lookup);
    free(work);
    free(payload);
    free(data);
    return 0;
}
