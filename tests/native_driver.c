/* Runs cases from standard input through remac.c, every array in heap memory of exactly its size, so that sanitizers see each byte read or written
 * beyond it. Built and fed by test_native.py; all numbers in the byte order of the machine.
 *   tables:      T, N (u32), first i32[T], start i32[T + 1], cdf u16[N], reciprocal u64[N], lookup u16[T * 256]
 *   then cases:  1, lanes_log2, size, n, split (u32), band u8[size], tables u16[n]                       -> status, CRC of the symbols (0 if not OK)
 *                2, lanes_log2, n, room (u32), symbols i32[n], tables u16[n]                             -> status, CRC of the band (0 if not OK)
 *                3, positions, channels, coded_from (u32), gain.. context_shift i32[4 * channels], rounding i32[64], score i16[1024],
 *                   y, mu, scale i32 -> 0, CRC
 *                4, lanes_log2, size, positions, split, channels, coded_from, offset (u32), score i16[1024], band u8[size],
 *                   level u16[positions * channels] -> status, CRC of symbols, tables and what the channels have learnt (0 if not OK)
 */
#include <stdio.h>
#include <stdlib.h>

#include "remac.h"

static void *take(size_t size)
{
    void *memory = malloc(size); /* not rounded up: one byte more is an error */
    if (memory == NULL || (size > 0 && fread(memory, 1, size, stdin) != size))
        exit(2);
    return memory;
}

static uint32_t number(void)
{
    uint32_t *memory = take(4), value = *memory;
    free(memory);
    return value;
}

static void answer(uint32_t status, uint32_t crc)
{
    const uint32_t both[2] = {status, crc};
    if (fwrite(both, 4, 2, stdout) != 2)
        exit(2);
}

static void decode(const remac_tables *model)
{
    const uint32_t lanes_log2 = number(), size = number(), n = number(), split = number();
    uint8_t *band = take(size);
    uint16_t *tables = take(2 * (size_t)n);
    int32_t *symbols = malloc(4 * (size_t)n);
    remac_decoder decoder;
    remac_status status = remac_decoder_start(&decoder, band, size, lanes_log2);
    if (status == REMAC_OK)
        status = remac_decode(&decoder, model, band, size, split, tables, symbols);
    if (status == REMAC_OK)
        status = remac_decode(&decoder, model, band, size, n - split, tables + split, symbols + split);
    if (status == REMAC_OK)
        status = remac_decoder_finish(&decoder, size);
    answer(status, status == REMAC_OK ? remac_crc32c(0, (const uint8_t *)symbols, 4 * (size_t)n) : 0);
    free(band);
    free(tables);
    free(symbols);
}

static void decode_latents(const remac_tables *model)
{
    const uint32_t lanes_log2 = number(), size = number(), positions = number(), split = number(), channels = number(), coded_from = number();
    const uint32_t offset = number();
    const size_t n = (size_t)positions * channels, first = (size_t)split * channels;
    int16_t *score = take(2 * REMAC_SCALE_LEVELS * REMAC_SCORE_SIZES);
    uint8_t *band = take(size);
    uint16_t *level = take(2 * n);
    int32_t *symbols = malloc(4 * n), *channel = calloc(channels, 4);
    const remac_adaptation adaptation = {score, channel, channels, (int32_t)coded_from, (uint16_t)offset};
    remac_decoder decoder;
    remac_status status = remac_decoder_start(&decoder, band, size, lanes_log2);
    if (status == REMAC_OK)
        status = remac_decode_latents(&decoder, model, band, size, &adaptation, split, level, symbols);
    if (status == REMAC_OK)
        status = remac_decode_latents(&decoder, model, band, size, &adaptation, positions - split, level + first, symbols + first);
    if (status == REMAC_OK)
        status = remac_decoder_finish(&decoder, size);
    uint32_t crc = 0;
    if (status == REMAC_OK) {
        crc = remac_crc32c(0, (const uint8_t *)symbols, 4 * n);
        crc = remac_crc32c(crc, (const uint8_t *)level, 2 * n);
        crc = remac_crc32c(crc, (const uint8_t *)channel, 4 * (size_t)channels);
    }
    answer(status, crc);
    free(score);
    free(band);
    free(level);
    free(symbols);
    free(channel);
}

static void encode(const remac_tables *model)
{
    const uint32_t lanes_log2 = number(), n = number(), room = number();
    int32_t *symbols = take(4 * (size_t)n);
    uint16_t *tables = take(2 * (size_t)n);
    uint8_t *out = malloc(room);
    size_t offset = 0;
    const remac_status status = remac_encode(model, n, symbols, tables, lanes_log2, out, room, &offset);
    answer(status, status == REMAC_OK ? remac_crc32c(0, out + offset, room - offset) : 0);
    free(symbols);
    free(tables);
    free(out);
}

static void elements(void)
{
    const uint32_t positions = number(), channels = number(), coded_from = number();
    const size_t n = (size_t)positions * channels;
    int32_t *gain = take(4 * (size_t)channels), *inverse_gain = take(4 * (size_t)channels), *scale_offset = take(4 * (size_t)channels);
    int32_t *context_shift = take(4 * (size_t)channels), *rounding = take(4 * REMAC_SCALE_LEVELS);
    int16_t *score = take(2 * REMAC_SCALE_LEVELS * REMAC_SCORE_SIZES);
    int32_t *y = take(4 * n), *mu = take(4 * n), *scale = take(4 * n);
    int32_t *symbols = malloc(4 * n), *y_hat = malloc(4 * n), *coded = malloc(4 * n), *channel = calloc(channels, 4);
    uint8_t *plane = malloc(n);
    uint16_t *level = malloc(2 * n), *tables = malloc(2 * n);
    int32_t *acc = malloc(4 * n);
    const remac_quality quality = {gain, inverse_gain, scale_offset, context_shift, rounding, channels, (int32_t)coded_from};
    const remac_adaptation adaptation = {score, channel, channels, (int32_t)coded_from, 96};
    remac_quantise(positions, &quality, y, mu, scale, symbols, level, plane, y_hat);
    uint32_t crc = remac_crc32c(0, (const uint8_t *)level, 2 * n);
    remac_scale_level(positions, channels, scale, scale_offset, level);
    const size_t count = remac_collect(&adaptation, positions, symbols, level, coded, tables);
    remac_dequantise(positions, channels, inverse_gain, context_shift, mu, symbols, y_hat, plane);
    for (size_t i = 0; i < n; i++)
        acc[i] = y[i] >> 7; /* to -2^24: more than remac_requantise is given */
    remac_requantise(positions, channels, context_shift, acc);
    crc = remac_crc32c(crc, (const uint8_t *)tables, 2 * count);
    crc = remac_crc32c(crc, (const uint8_t *)coded, 4 * count);
    crc = remac_crc32c(crc, (const uint8_t *)channel, 4 * (size_t)channels);
    crc = remac_crc32c(crc, (const uint8_t *)symbols, 4 * n);
    crc = remac_crc32c(crc, (const uint8_t *)y_hat, 4 * n);
    crc = remac_crc32c(crc, plane, n);
    answer(0, remac_crc32c(crc, (const uint8_t *)acc, 4 * n));
    void *all[] = {gain, inverse_gain, scale_offset, context_shift, rounding, score, y, mu, scale, symbols, y_hat, coded, channel, plane, level,
                   tables, acc};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

int main(void)
{
    const uint32_t count = number(), values = number();
    int32_t *first = take(4 * (size_t)count), *start = take(4 * ((size_t)count + 1));
    uint16_t *cdf = take(2 * (size_t)values);
    uint64_t *reciprocal = take(8 * (size_t)values);
    uint16_t *lookup = take(2 * (size_t)count * REMAC_LOOKUP_SIZE);
    const remac_tables model = {first, start, cdf, reciprocal, lookup, count};
    uint32_t kind;
    while (fread(&kind, 4, 1, stdin) == 1) {
        if (kind == 1)
            decode(&model);
        else if (kind == 2)
            encode(&model);
        else if (kind == 3)
            elements();
        else
            decode_latents(&model);
    }
    free(first);
    free(start);
    free(cdf);
    free(reciprocal);
    free(lookup);
    return 0;
}
