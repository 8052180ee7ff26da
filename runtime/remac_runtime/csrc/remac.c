/* SPDX-License-Identifier: MIT */
/* See remac.h. Comments cite the rule of runtime/FORMAT.md and the bound that keeps an integer within its type. */
#include "remac.h"

/* FORMAT's a >> s is the arithmetic shift. */
typedef char remac_needs_arithmetic_shift[(-1 >> 1) == -1 ? 1 : -1];

/* Where compiler and C library can choose at load time, the element-wise functions are compiled a second time for AVX2. What they call must then be
 * inlined, or it would stay with the first instruction set. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 8 && !defined(REMAC_NO_CLONES)
#define REMAC_CLONES __attribute__((target_clones("default", "avx2")))
#define REMAC_INLINE static inline __attribute__((always_inline))
#else
#define REMAC_CLONES
#define REMAC_INLINE static inline
#endif

#if defined(__x86_64__) && defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 8) && !defined(REMAC_NO_CLONES)
#define REMAC_X86
#include "remac_x86.h"
#endif

#define CHUNK 256u /* channels handled at a time: their thresholds fit the stack */

#include "remac_crc.h"

/* ---- arithmetic (FORMAT 5) ---- */

REMAC_INLINE int32_t clamp(int32_t value, int32_t low, int32_t high)
{
    value = value < low ? low : value;
    return value > high ? high : value;
}

#ifndef REMAC_ENCODER_ONLY
REMAC_CLONES
void remac_requantise(size_t rows, size_t channels, const int32_t *restrict shift, int32_t *restrict acc)
{
    for (size_t r = 0; r < rows; r++, acc += channels) {
        for (size_t c = 0; c < channels; c++) {
            const int32_t right = shift[c] > 0 ? shift[c] : 0, left = shift[c] < 0 ? -shift[c] : 0;
            const int32_t half = (1 << right >> 1) - (right > 0), odd = right > 0;
            /* |acc| < 2^24 and half < 2^15; the product is the head's output, below 2^26 */
            acc[c] = ((acc[c] + half + ((acc[c] >> right) & odd)) >> right) * (1 << left);
        }
    }
}
#endif

/* level = clamp(scale + scale_offset + 8, 0, 1023) */
REMAC_INLINE void level_row(size_t n, const int32_t *restrict scale, const int32_t *restrict offset, uint16_t *restrict level)
{
    const int32_t half = 1 << (REMAC_SCALE_FRACTION_BITS - 1);
    for (size_t c = 0; c < n; c++) {
        /* scale is cut to +-2^30, which gives level 0 or 1023 as before, so that the sum stays within int32 (|offset| <= 2^20) */
        const int32_t sum = clamp(scale[c], -(INT32_C(1) << 30), INT32_C(1) << 30) + offset[c] + half;
        level[c] = (uint16_t)clamp(sum, 0, REMAC_LEVEL_MAX);
    }
}

/* k = sign(v) * ((|v| + rounding[level >> 4]) >> 30) within +-(2^20 - 1), 0 where level < lowest; `rounding` is looked up already */
REMAC_INLINE void symbols_row(size_t n, int32_t lowest, const int32_t *restrict y, const int32_t *restrict mu, const int32_t *restrict gain,
                               const int32_t *restrict rounding, const uint16_t *restrict level, int32_t *restrict symbols)
{
    for (size_t c = 0; c < n; c++) {
        const uint32_t negative = y[c] < mu[c] ? UINT32_MAX : 0;
        const uint32_t distance = (((uint32_t)y[c] - (uint32_t)mu[c]) ^ negative) - negative;     /* |y - mu| <= 2^32 - 1 */
        const uint64_t v = (uint64_t)distance * (uint32_t)gain[c] + (uint32_t)rounding[c];       /* < 2^32 * 2^24 + 2^30 */
        const int32_t free = (int32_t)(v >> REMAC_GAIN_BITS);                                     /* <= 2^26 */
        const int32_t limited = free < REMAC_SYMBOL_LIMIT ? free : REMAC_SYMBOL_LIMIT - 1;
        const int32_t k = level[c] >= lowest ? limited : 0;
        symbols[c] = negative ? -k : k;
    }
}

/* y_hat = clamp(mu + k * inverse_gain, -2^31, 2^31 - 1). Through unsigned so that 32 bits and no 64-bit comparison suffice. */
REMAC_INLINE void y_hat_row(size_t n, const int32_t *restrict mu, const int32_t *restrict symbols, const int32_t *restrict inverse_gain,
                             uint32_t *restrict y_hat)
{
    for (size_t c = 0; c < n; c++) {
        const uint32_t negative = symbols[c] < 0 ? UINT32_MAX : 0;
        const uint32_t magnitude = ((uint32_t)symbols[c] ^ negative) - negative;                  /* <= 2^31 */
        const uint64_t product = (uint64_t)magnitude * (uint32_t)inverse_gain[c];                 /* < 2^57 */
        const uint32_t step = product >> 32 ? UINT32_MAX : (uint32_t)product;
        const uint32_t room = negative ? (uint32_t)mu[c] + 0x80000000u : 0x7FFFFFFFu - (uint32_t)mu[c];   /* distance to the limit */
        y_hat[c] = (uint32_t)mu[c] + (((step < room ? step : room) ^ negative) - negative);
    }
}

/* plane = clamp(rne(y_hat, context_shift) + 128, 0, 255) */
REMAC_INLINE void plane_row(size_t n, const int32_t *restrict y_hat, const int32_t *restrict shift, uint8_t *restrict plane)
{
    for (size_t c = 0; c < n; c++) {
        const int32_t half = (1 << shift[c] >> 1) - (shift[c] > 0), odd = shift[c] > 0;
        /* shift <= 16: everything from 2^23 on saturates, so cutting at 2^24 changes nothing and 32 bits suffice for the rule of 5.1 */
        const int32_t a = clamp(y_hat[c], -(INT32_C(1) << 24), INT32_C(1) << 24);
        plane[c] = (uint8_t)clamp(((a + half + ((a >> shift[c]) & odd)) >> shift[c]) + REMAC_LATENT_OFFSET, 0, 255);
    }
}

#ifndef REMAC_ENCODER_ONLY
REMAC_CLONES
void remac_scale_level(size_t positions, size_t channels, const int32_t *scale, const int32_t *scale_offset, uint16_t *level)
{
    for (size_t p = 0; p < positions; p++)
        level_row(channels, scale + p * channels, scale_offset, level + p * channels);
}
#endif

/* remac_quantise of the channels from `from` on at one position. */
REMAC_INLINE void quantise_from(size_t from, const remac_quality *q, const int32_t *y, const int32_t *mu, const int32_t *scale, int32_t *symbols,
                                uint16_t *level, uint8_t *plane, int32_t *y_hat)
{
    int32_t rounding[CHUNK];
    for (size_t c = from; c < q->channels; c += CHUNK) {
        const size_t n = q->channels - c < CHUNK ? q->channels - c : CHUNK;
        level_row(n, scale + c, q->scale_offset + c, level + c);
        for (size_t i = 0; i < n; i++)
            rounding[i] = q->rounding[level[c + i] >> REMAC_SCALE_FRACTION_BITS];
        symbols_row(n, q->coded_from << REMAC_SCALE_FRACTION_BITS, y + c, mu + c, q->gain + c, rounding, level + c, symbols + c);
        y_hat_row(n, mu + c, symbols + c, q->inverse_gain + c, (uint32_t *)y_hat + c);
        plane_row(n, y_hat + c, q->context_shift + c, plane + c);
    }
}

REMAC_CLONES
void remac_quantise(size_t positions, const remac_quality *q, const int32_t *y, const int32_t *mu, const int32_t *scale,
                    int32_t *symbols, uint16_t *level, uint8_t *plane, int32_t *y_hat)
{
#ifdef REMAC_X86
    const int wide = has_avx512();
#endif
    for (size_t at = 0; at < positions * q->channels; at += q->channels) {
        size_t from = 0;
#ifdef REMAC_X86
        if (wide)
            from = quantise_avx512(q, y + at, mu + at, scale + at, symbols + at, level + at, plane + at, y_hat + at);
#endif
        quantise_from(from, q, y + at, mu + at, scale + at, symbols + at, level + at, plane + at, y_hat + at);
    }
}

#ifndef REMAC_ENCODER_ONLY
REMAC_CLONES
void remac_dequantise(size_t positions, size_t channels, const int32_t *inverse_gain, const int32_t *context_shift, const int32_t *mu,
                      const int32_t *symbols, int32_t *y_hat, uint8_t *plane)
{
    for (size_t at = 0; at < positions * channels; at += channels) {
        y_hat_row(channels, mu + at, symbols + at, inverse_gain, (uint32_t *)y_hat + at);
        plane_row(channels, y_hat + at, context_shift, plane + at);
    }
}
#endif

/* ---- order and tables of the latents (FORMAT 6.1) ---- */

/* The table of y for a level. |channel| <= 2^14, and |position| < 2^20, as it loses a 128th of itself with each score of at most 2^12. */
REMAC_INLINE int32_t adapted(const remac_adaptation *a, int32_t level, int32_t channel, int32_t position)
{
    const int32_t unit = 1 << (REMAC_ADAPTATION_BITS - REMAC_SCALE_FRACTION_BITS);
    return clamp((level * unit + channel + position) >> REMAC_ADAPTATION_BITS, a->coded_from, REMAC_SCALE_LEVELS - 1);
}

/* What a symbol that was coded with `table` teaches its channel; returns the new state of its position, whose loss does not wait for the score. */
REMAC_INLINE int32_t learn(const remac_adaptation *a, int32_t table, int32_t symbol, int32_t *channel, int32_t position)
{
    const int32_t last = REMAC_SCORE_SIZES - 1, size = clamp(symbol, -last, last);
    const int32_t score = a->score[table * REMAC_SCORE_SIZES + (size < 0 ? -size : size)];
    const int32_t step = (score + (1 << (REMAC_CHANNEL_SHIFT - 1))) >> REMAC_CHANNEL_SHIFT;
    *channel = clamp(*channel + step, -REMAC_ADAPTATION_LIMIT, REMAC_ADAPTATION_LIMIT);
    return position - ((position + (1 << (REMAC_POSITION_SHIFT - 1))) >> REMAC_POSITION_SHIFT) + score;
}

size_t remac_collect(const remac_adaptation *a, size_t positions, const int32_t *symbols, const uint16_t *level, int32_t *out_symbols,
                     uint16_t *out_tables)
{
    const int32_t lowest = a->coded_from << REMAC_SCALE_FRACTION_BITS;
    size_t count = 0;
    for (size_t p = 0; p < positions; p++, symbols += a->channels, level += a->channels) {
        int32_t position = 0;
        for (size_t c = 0; c < a->channels; c++) {
            if (level[c] < lowest)
                continue;
            const int32_t table = adapted(a, level[c], a->channel[c], position);
            position = learn(a, table, symbols[c], &a->channel[c], position);
            out_symbols[count] = symbols[c];
            out_tables[count++] = (uint16_t)(table + a->offset);
        }
    }
    return count;
}

/* ---- rANS encoder (FORMAT 6.2, 6.3) ---- */

size_t remac_encode_bound(size_t n, unsigned lanes_log2)
{
    return ((size_t)4 << lanes_log2) + 8 * n; /* a word and at most 42 escape bits a symbol, rounded up */
}

/* First pass, in the order of decoding: checks the input and writes the escape bits from the end of out backwards; *bytes is their length. */
static remac_status write_escapes(const remac_tables *model, size_t n, const int32_t *symbols, const uint16_t *tables, uint8_t *out, size_t room,
                                  size_t *bytes)
{
    uint64_t bits = 0;   /* the lowest `held` bits wait for being written */
    unsigned held = 0;   /* < 8 between symbols */
    size_t written = 0;
#ifdef REMAC_X86
    limits of;
    const int wide = has_avx512() && take_limits(model, &of);
    size_t next = 0; /* to be looked at 32 at a time from here on */
#endif
    for (size_t i = 0; i < n; i++) {
#ifdef REMAC_X86
        if (wide && i == next) {
            i += within_tables(&of, n - i, symbols + i, tables + i);
            next = i + 32;
            if (i == n)
                break;
        }
#endif
        const uint32_t t = tables[i];
        const int32_t k = symbols[i];
        if (t >= model->count)
            return REMAC_BAD_TABLE;
        if (k <= -REMAC_SYMBOL_LIMIT || k >= REMAC_SYMBOL_LIMIT)
            return REMAC_BAD_SYMBOL;
        const int32_t last = model->start[t + 1] - model->start[t] - 2, beyond = k - model->first[t];
        if (beyond >= 0 && beyond < last)
            continue;
        /* first is int16 and last < 2^14, hence e + 1 <= 2^20 + 2^15: at most 21 bits */
        const uint32_t value = (uint32_t)(beyond < 0 ? -beyond : beyond - last + 1);
        unsigned width = 1;
        while (value >> width != 0)
            width++;
        bits = (bits << (2 * width)) | (uint64_t)value | ((uint64_t)(beyond < 0) << (2 * width - 1)); /* sign, width - 1 zeros, value */
        for (held += 2 * width; held >= 8; held -= 8) {
            if (written == room)
                return REMAC_NO_ROOM;
            out[room - ++written] = (uint8_t)(bits >> (held - 8));
        }
    }
    if (held > 0) {
        if (written == room)
            return REMAC_NO_ROOM;
        out[room - ++written] = (uint8_t)(bits << (8 - held));
    }
    *bytes = written;
    return REMAC_OK;
}

remac_status remac_encode(const remac_tables *model, size_t n, const int32_t *symbols, const uint16_t *tables, unsigned lanes_log2,
                          uint8_t *out, size_t room, size_t *offset)
{
    uint32_t state[REMAC_LANES_MAX];
    size_t escapes = 0;
    if (lanes_log2 > REMAC_LANES_LOG2_MAX)
        return REMAC_BAD_LANES;
    const remac_status status = write_escapes(model, n, symbols, tables, out, room, &escapes);
    if (status != REMAC_OK)
        return status;
    const size_t lanes = (size_t)1 << lanes_log2;
    if (room - escapes < 4 * lanes || (room - escapes - 4 * lanes) / 2 < n)
        return REMAC_NO_ROOM;
    for (size_t lane = 0; lane < lanes; lane++)
        state[lane] = REMAC_STATE_LOW;
    uint8_t *at = out + (room - escapes);
    for (size_t i = n; i-- > 0;) {
        const uint32_t t = tables[i], start = (uint32_t)model->start[t], last = (uint32_t)model->start[t + 1] - start - 2;
        const uint32_t j = (uint32_t)symbols[i] - (uint32_t)model->first[t]; /* wraps to a large number below the table */
        const uint32_t g = start + (j < last ? j : last);
        const uint32_t low = model->cdf[g], f = model->cdf[g + 1] - low;
        uint32_t x = state[i & (lanes - 1)];
        at[-2] = (uint8_t)x; /* there is room for a word a symbol; it counts only if the state is too large */
        at[-1] = (uint8_t)(x >> 8);
        const uint32_t emit = x >= f << 18; /* 0 or 1, hardly predictable: so no branch */
        at -= 2 * emit;
        x >>= 16 * emit; /* now 2^2 * f <= x < 2^18 * f, as f < 2^14 */
        /* r = reciprocal = ceil(2^46 / f) = (2^46 + e) / f with e < f. x * r < 2^64, since (f * 2^18 - 1) * (2^46 + e) / f < 2^64 for e * f < 2^28;
         * and the quotient is exact, since x * e < 2^46. */
        const uint32_t quotient = (uint32_t)((x * model->reciprocal[g]) >> 46);
        state[i & (lanes - 1)] = x + low + quotient * ((1u << REMAC_PROBABILITY_BITS) - f); /* (x div f << 14) + x mod f + c < 2^32 */
    }
    for (size_t lane = lanes; lane-- > 0;) {
        at -= 4;
        for (unsigned b = 0; b < 4; b++)
            at[b] = (uint8_t)(state[lane] >> (8 * b));
    }
    *offset = (size_t)(at - out);
    return REMAC_OK;
}

#ifndef REMAC_ENCODER_ONLY
/* ---- rANS decoder ---- */

static uint32_t escape_bytes(const remac_decoder *d)
{
    return (d->escape_bits + 7) / 8;
}

remac_status remac_decoder_start(remac_decoder *d, const uint8_t *band, size_t size, unsigned lanes_log2)
{
    if (lanes_log2 > REMAC_LANES_LOG2_MAX)
        return REMAC_BAD_LANES;
    if (size >= REMAC_BAND_BYTES_MAX)
        return REMAC_CORRUPT_LENGTH;
    const uint32_t lanes = UINT32_C(1) << lanes_log2;
    if (size < 4 * lanes)
        return REMAC_CORRUPT_END;
    for (uint32_t lane = 0; lane < lanes; lane++, band += 4) {
        d->state[lane] = (uint32_t)band[0] | (uint32_t)band[1] << 8 | (uint32_t)band[2] << 16 | (uint32_t)band[3] << 24;
        if (d->state[lane] < REMAC_STATE_LOW)
            return REMAC_CORRUPT_STATE;
    }
    d->lanes_mask = lanes - 1;
    d->lane = 0;
    d->next = 4 * lanes;
    d->escape_bits = 0;
    return REMAC_OK;
}

/* Reads one escape (FORMAT 6.3) for a table of entries first .. first + last - 1. At most 42 bits, none of them below d->next. */
static remac_status read_escape(remac_decoder *d, const uint8_t *band, uint32_t size, int32_t first, int32_t last, int32_t *symbol)
{
    uint32_t negative = 0, zeros = 0, value = 0, needed = 2; /* bits of this escape known to be needed: sign, then zeros and a one */
    for (uint32_t got = 0; got < needed; got++) {
        const uint32_t byte = d->escape_bits / 8;
        if (byte >= size - d->next)
            return REMAC_CORRUPT_END;
        const uint32_t bit = (uint32_t)band[size - 1 - byte] >> (7 - d->escape_bits % 8) & 1;
        d->escape_bits++;
        if (got == 0) {
            negative = bit;
        } else if (value == 0 && bit == 0) {
            if (++zeros > REMAC_ESCAPE_ZEROS_MAX)
                return REMAC_CORRUPT_ESCAPE;
            needed += 2;
        } else {
            value = value << 1 | bit; /* < 2^21 */
        }
    }
    const int32_t k = negative ? first - (int32_t)value : first + last + (int32_t)value - 1; /* e = value - 1 */
    if (k <= -REMAC_SYMBOL_LIMIT || k >= REMAC_SYMBOL_LIMIT)
        return REMAC_CORRUPT_ESCAPE;
    *symbol = k;
    return REMAC_OK;
}

/* One symbol with table t. `end` is that of the words; size < 2^28. */
REMAC_INLINE remac_status decode_symbol(remac_decoder *d, const remac_tables *model, const uint8_t *band, uint32_t size, uint32_t *end, uint32_t t,
                                        int32_t *symbol)
{
    if (t >= model->count)
        return REMAC_BAD_TABLE;
    const uint32_t x = d->state[d->lane], slot = x & ((1u << REMAC_PROBABILITY_BITS) - 1), start = (uint32_t)model->start[t];
    uint32_t g = start + model->lookup[t * REMAC_LOOKUP_SIZE + (slot >> (REMAC_PROBABILITY_BITS - REMAC_LOOKUP_BITS))];
    while (model->cdf[g + 1] <= slot) /* ends within the table, whose last value is 2^14 > slot */
        g++;
    const uint32_t low = model->cdf[g], f = model->cdf[g + 1] - low;
    uint32_t next = f * (x >> REMAC_PROBABILITY_BITS) + slot - low; /* <= x */
    if (next < REMAC_STATE_LOW) {
        if (*end - d->next < 2)
            return REMAC_CORRUPT_END;
        next = next << 16 | (uint32_t)band[d->next] | (uint32_t)band[d->next + 1] << 8;
        d->next += 2;
    }
    d->state[d->lane] = next;
    d->lane = (d->lane + 1) & d->lanes_mask;
    const int32_t last = model->start[t + 1] - (int32_t)start - 2, j = (int32_t)(g - start);
    *symbol = model->first[t] + j;
    if (j != last)
        return REMAC_OK;
    const remac_status status = read_escape(d, band, size, model->first[t], last, symbol);
    *end = size - escape_bytes(d); /* >= d->next: read_escape stays above it */
    return status;
}

remac_status remac_decode(remac_decoder *d, const remac_tables *model, const uint8_t *band, size_t size, size_t n, const uint16_t *tables,
                          int32_t *symbols)
{
    uint32_t end = (uint32_t)size - escape_bytes(d);
    for (size_t i = 0; i < n; i++) {
        const remac_status status = decode_symbol(d, model, band, (uint32_t)size, &end, tables[i], symbols + i);
        if (status != REMAC_OK)
            return status;
    }
    return REMAC_OK;
}

remac_status remac_decode_latents(remac_decoder *d, const remac_tables *model, const uint8_t *band, size_t size, const remac_adaptation *a,
                                  size_t positions, uint16_t *level, int32_t *symbols)
{
    const int32_t lowest = a->coded_from << REMAC_SCALE_FRACTION_BITS;
    uint32_t end = (uint32_t)size - escape_bytes(d);
    for (size_t p = 0; p < positions; p++, symbols += a->channels, level += a->channels) {
        int32_t position = 0;
        for (size_t c = 0; c < a->channels; c++) {
            const int32_t coded = level[c] >= lowest, table = coded ? adapted(a, level[c], a->channel[c], position) : 0;
            symbols[c] = 0;
            level[c] = (uint16_t)table;
            if (!coded)
                continue;
            const remac_status status = decode_symbol(d, model, band, (uint32_t)size, &end, (uint32_t)table + a->offset, symbols + c);
            if (status != REMAC_OK)
                return status;
            position = learn(a, table, symbols[c], &a->channel[c], position);
        }
    }
    return REMAC_OK;
}

remac_status remac_decoder_finish(const remac_decoder *d, size_t size)
{
    for (uint32_t lane = 0; lane <= d->lanes_mask; lane++)
        if (d->state[lane] != REMAC_STATE_LOW)
            return REMAC_CORRUPT_STATE;
    return d->next + escape_bytes(d) == size ? REMAC_OK : REMAC_CORRUPT_LENGTH;
}
#endif
