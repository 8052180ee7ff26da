/* SPDX-License-Identifier: MIT */
/*
 * Bodies of remac_crc32c, remac_quantise and of the encoder's search for escapes for x86-64 processors that have SSE4.2 or AVX-512,
 * which is found out at run time: part of remac.c, whose plain loops are the specification and do what is left of a vector.
 */
#ifndef REMAC_X86_H
#define REMAC_X86_H

#include <immintrin.h>
#include <string.h>

#define LANES 16u
#define SETS_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define IN_AVX512 SETS_AVX512 static inline __attribute__((always_inline))

static int has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
           && __builtin_cpu_supports("avx512vl");
}

/* The first bytes of a CRC, all but the last size % 8; `value` is the inverted one. */
__attribute__((target("sse4.2")))
static uint32_t crc32c_sse42(uint32_t value, const uint8_t *data, size_t size)
{
    uint64_t crc = value, word = 0;
    for (size_t i = 0; i + sizeof word <= size; i += sizeof word) {
        memcpy(&word, data + i, sizeof word);
        crc = _mm_crc32_u64(crc, word);
    }
    return (uint32_t)crc;
}

IN_AVX512 __m512i load_lanes(const int32_t *p)
{
    return _mm512_loadu_si512((const void *)p);
}

IN_AVX512 __m512i limited(__m512i value, int32_t low, int32_t high)
{
    return _mm512_min_epi32(_mm512_max_epi32(value, _mm512_set1_epi32(low)), _mm512_set1_epi32(high));
}

/* `even` and `odd` hold 64-bit values of the even and odd lanes; their lower words, or their upper ones, as 16 lanes. */
IN_AVX512 __m512i lower_words(__m512i even, __m512i odd)
{
    return _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
}

IN_AVX512 __m512i upper_words(__m512i even, __m512i odd)
{
    return _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
}

/* level_row */
IN_AVX512 __m512i level_lanes(__m512i scale, __m512i offset)
{
    const __m512i sum = _mm512_add_epi32(limited(scale, -(INT32_C(1) << 30), INT32_C(1) << 30), offset);
    const __m512i half = _mm512_set1_epi32(1 << (REMAC_SCALE_FRACTION_BITS - 1));
    return limited(_mm512_add_epi32(sum, half), 0, REMAC_LEVEL_MAX);
}

/* table[index] of 64 values */
IN_AVX512 __m512i look_up(const __m512i *table, __m512i index)
{
    const __m512i low = _mm512_permutex2var_epi32(table[0], index, table[1]), high = _mm512_permutex2var_epi32(table[2], index, table[3]);
    return _mm512_mask_blend_epi32(_mm512_test_epi32_mask(index, _mm512_set1_epi32(32)), low, high);
}

/* symbols_row without the sign: |k|, before coded_from is looked at */
IN_AVX512 __m512i magnitude_lanes(__m512i distance, __m512i gain, __m512i rounding)
{
    const __m512i low = _mm512_set1_epi64(INT64_C(0xFFFFFFFF));
    const __m512i even = _mm512_add_epi64(_mm512_mul_epu32(distance, gain), _mm512_and_si512(rounding, low));
    const __m512i product = _mm512_mul_epu32(_mm512_srli_epi64(distance, 32), _mm512_srli_epi64(gain, 32));
    const __m512i odd = _mm512_add_epi64(product, _mm512_srli_epi64(rounding, 32));
    const __m512i k = lower_words(_mm512_srli_epi64(even, REMAC_GAIN_BITS), _mm512_srli_epi64(odd, REMAC_GAIN_BITS));
    return _mm512_min_epi32(k, _mm512_set1_epi32(REMAC_SYMBOL_LIMIT - 1));
}

/* y_hat_row, with the sign of the symbol in `negative` */
IN_AVX512 __m512i y_hat_lanes(__m512i mu, __m512i magnitude, __mmask16 negative, __m512i inverse_gain)
{
    const __m512i even = _mm512_mul_epu32(magnitude, inverse_gain);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(magnitude, 32), _mm512_srli_epi64(inverse_gain, 32));
    const __m512i upper = upper_words(even, odd), ones = _mm512_set1_epi32(-1);
    const __m512i step = _mm512_mask_mov_epi32(lower_words(even, odd), _mm512_test_epi32_mask(upper, upper), ones);
    const __m512i ends = _mm512_mask_mov_epi32(_mm512_set1_epi32(INT32_MAX), negative, _mm512_set1_epi32(INT32_MIN));
    const __m512i kept = _mm512_min_epu32(step, _mm512_xor_si512(mu, ends)); /* the distance of mu to the limit */
    return _mm512_mask_sub_epi32(_mm512_add_epi32(mu, kept), negative, mu, kept);
}

/* plane_row */
IN_AVX512 __m128i plane_lanes(__m512i y_hat, __m512i shift)
{
    const __m512i a = limited(y_hat, -(INT32_C(1) << 24), INT32_C(1) << 24), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_min_epi32(shift, one), half = _mm512_sub_epi32(_mm512_srli_epi32(_mm512_sllv_epi32(one, shift), 1), odd);
    const __m512i tie = _mm512_and_si512(_mm512_srav_epi32(a, shift), odd);
    const __m512i value = _mm512_srav_epi32(_mm512_add_epi32(_mm512_add_epi32(a, half), tie), shift);
    return _mm512_cvtepi32_epi8(limited(_mm512_add_epi32(value, _mm512_set1_epi32(REMAC_LATENT_OFFSET)), 0, 255));
}

/* The first channels of remac_quantise at one position; returns how many: all but the last channels % 16. */
SETS_AVX512
static size_t quantise_avx512(const remac_quality *q, const int32_t *y, const int32_t *mu, const int32_t *scale, int32_t *symbols, uint16_t *level,
                              uint8_t *plane, int32_t *y_hat)
{
    const __m512i table[4] = {load_lanes(q->rounding), load_lanes(q->rounding + 16), load_lanes(q->rounding + 32), load_lanes(q->rounding + 48)};
    size_t c = 0;
    for (; c + LANES <= q->channels; c += LANES) {
        const __m512i y_lanes = load_lanes(y + c), mu_lanes = load_lanes(mu + c), zero = _mm512_setzero_si512();
        const __m512i levels = level_lanes(load_lanes(scale + c), load_lanes(q->scale_offset + c));
        const __m512i number = _mm512_srli_epi32(levels, REMAC_SCALE_FRACTION_BITS);
        const __mmask16 negative = _mm512_cmplt_epi32_mask(y_lanes, mu_lanes);
        const __mmask16 coded = _mm512_cmpge_epi32_mask(number, _mm512_set1_epi32(q->coded_from));
        const __m512i difference = _mm512_sub_epi32(y_lanes, mu_lanes), distance = _mm512_mask_sub_epi32(difference, negative, zero, difference);
        const __m512i k = _mm512_maskz_mov_epi32(coded, magnitude_lanes(distance, load_lanes(q->gain + c), look_up(table, number)));
        const __m512i decoded = y_hat_lanes(mu_lanes, k, negative, load_lanes(q->inverse_gain + c));
        _mm512_storeu_si512((void *)(symbols + c), _mm512_mask_sub_epi32(k, negative, zero, k));
        _mm256_storeu_si256((__m256i *)(void *)(level + c), _mm512_cvtepi32_epi16(levels));
        _mm_storeu_si128((__m128i *)(void *)(plane + c), plane_lanes(decoded, load_lanes(q->context_shift + c)));
        _mm512_storeu_si512((void *)(y_hat + c), decoded);
    }
    return c;
}

/* First symbols and sizes of the last 128 tables, among which are all of y, from number `from` on; size 0 where there is none. */
#define LIMITS 128u
typedef struct {
    uint16_t from;
    int16_t first[LIMITS];
    int16_t last[LIMITS];
} limits;

/* 1 if the symbols of the tables lie within int16 with one to spare at its lower end, else 0. */
static int take_limits(const remac_tables *model, limits *to)
{
    memset(to, 0, sizeof *to);
    if (model->count > UINT16_MAX)
        return 0;
    to->from = (uint16_t)(model->count > LIMITS ? model->count - LIMITS : 0);
    for (size_t t = to->from, i = 0; t < model->count; t++, i++) {
        const int32_t last = model->start[t + 1] - model->start[t] - 2;
        if (model->first[t] <= INT16_MIN || model->first[t] + last > INT16_MAX)
            return 0;
        to->first[i] = (int16_t)model->first[t];
        to->last[i] = (int16_t)last;
    }
    return 1;
}

/* table[index] of 128 values of 16 bits, index below 128 */
IN_AVX512 __m512i look_up_words(const int16_t *table, __m512i index)
{
    const __m512i low = _mm512_permutex2var_epi16(_mm512_loadu_si512((const void *)table), index, _mm512_loadu_si512((const void *)(table + 32)));
    const __m512i high = _mm512_permutex2var_epi16(_mm512_loadu_si512((const void *)(table + 64)), index,
                                                   _mm512_loadu_si512((const void *)(table + 96)));
    return _mm512_mask_blend_epi16(_mm512_test_epi16_mask(index, _mm512_set1_epi16(64)), low, high);
}

/* How many of the first symbols lie within their tables, in whole groups of 32 whose tables are known. A symbol beyond int16 saturates, and so may
 * its distance from the first one of the table: it stays outside on its side, as first > -2^15 and first + last < 2^15. */
SETS_AVX512
static size_t within_tables(const limits *of, size_t n, const int32_t *symbols, const uint16_t *tables)
{
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        const __m512i table = _mm512_sub_epi16(_mm512_loadu_si512((const void *)(tables + i)), _mm512_set1_epi16((int16_t)of->from));
        const __m512i low = _mm512_castsi256_si512(_mm512_cvtsepi32_epi16(load_lanes(symbols + i)));
        const __m512i k = _mm512_inserti64x4(low, _mm512_cvtsepi32_epi16(load_lanes(symbols + i + LANES)), 1);
        const __m512i beyond = _mm512_subs_epi16(k, look_up_words(of->first, table));
        const __mmask32 known = _mm512_cmplt_epu16_mask(table, _mm512_set1_epi16((int16_t)LIMITS));
        if (_mm512_mask_cmplt_epu16_mask(known, beyond, look_up_words(of->last, table)) != UINT32_MAX)
            break;
    }
    return i;
}

#endif
