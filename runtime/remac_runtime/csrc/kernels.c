/* SPDX-License-Identifier: MIT */
/* See kernels.h. Comments cite the rule of runtime/FORMAT.md and the bound that keeps an integer within its type. */
#include "kernels.h"

#define BLOCK REMAC_OUT_BLOCK
#define QUAD REMAC_INPUT_QUAD

/* FORMAT's a >> s is the arithmetic shift. */
typedef char remac_kernels_need_arithmetic_shift[(-1 >> 1) == -1 ? 1 : -1];

/* FORMAT 5.1. |acc| < 2^24 and 0 <= shift <= 16, or the result of a left shift is below 2^26: nothing leaves int32. */
static inline int32_t rne(int32_t acc, int shift)
{
    if (shift <= 0)
        return acc * (INT32_C(1) << -shift);
    return (acc + (INT32_C(1) << (shift - 1)) - 1 + ((acc >> shift) & 1)) >> shift;
}

static inline uint8_t clamp_u8(int32_t value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* Where a tile's results go: one of the two is not NULL. Both have `out` values a position. */
typedef struct {
    uint8_t *u8;
    int32_t *i32;
} target;

/* ---- portable: tiles of 4 positions and 4 outputs, whose accumulators stay in the registers of processors that have 32 (or, in pairs, 16) ---- */

#define TILE 4

static inline void store_one(const remac_dense *layer, target to, size_t position, size_t o, int32_t acc)
{
    if (o < layer->out) {
        const int32_t value = rne(acc + layer->bias[o], layer->shift[o]);
        if (to.u8 != NULL)
            to.u8[position * layer->out + o] = clamp_u8(value);
        else
            to.i32[position * layer->out + o] = value;
    }
}

/* acc[position][output] of positions at .. at + 3 and 4 outputs, `w` being the first of their weights. The loop over the inputs of a quad stays one
 * (unrolled, its 16 accumulators and 16 weights do not fit the registers). */
#if SIZE_MAX > UINT32_MAX

/* Registers of 64 bits: one multiplication does two outputs, a in the lower half and b in the upper one. Modulo 2^64 the accumulator is a + b * 2^32
 * with |a|, |b| < 2^24, from which both are had back. */
static inline uint64_t pair(int8_t a, int8_t b)
{
    return (uint64_t)a + ((uint64_t)b << 32);
}

static inline int32_t signed_half(uint64_t value)
{
    const uint32_t bits = (uint32_t)value;
    return bits <= INT32_MAX ? (int32_t)bits : -(int32_t)~bits - 1;
}

static inline void split(uint64_t sum, int32_t *acc)
{
    acc[0] = signed_half(sum);
    acc[1] = signed_half((sum - (uint64_t)acc[0]) >> 32);
}

static void portable_tile(const remac_tap *taps, size_t tap_count, const int8_t *w, size_t at, int32_t acc[TILE][TILE])
{
    uint64_t a0 = 0, b0 = 0, a1 = 0, b1 = 0, a2 = 0, b2 = 0, a3 = 0, b3 = 0;
    for (size_t t = 0; t < tap_count; t++) {
        const size_t step = taps[t].step;
        const uint8_t *p0 = taps[t].base + at * step, *p1 = p0 + step, *p2 = p1 + step, *p3 = p2 + step;
        for (size_t left = taps[t].channels; left >= QUAD; left -= QUAD, w += BLOCK * QUAD - QUAD) {
            for (int i = 0; i < QUAD; i++, w++) {
                const uint64_t w01 = pair(w[0], w[QUAD]), w23 = pair(w[2 * QUAD], w[3 * QUAD]);
                const uint64_t x0 = *p0++, x1 = *p1++, x2 = *p2++, x3 = *p3++;
                a0 += w01 * x0, b0 += w23 * x0, a1 += w01 * x1, b1 += w23 * x1;
                a2 += w01 * x2, b2 += w23 * x2, a3 += w01 * x3, b3 += w23 * x3;
            }
        }
    }
    split(a0, acc[0]), split(b0, acc[0] + 2), split(a1, acc[1]), split(b1, acc[1] + 2);
    split(a2, acc[2]), split(b2, acc[2] + 2), split(a3, acc[3]), split(b3, acc[3] + 2);
}

#else

static void portable_tile(const remac_tap *taps, size_t tap_count, const int8_t *w, size_t at, int32_t acc[TILE][TILE])
{
    int32_t a00 = 0, a01 = 0, a02 = 0, a03 = 0, a10 = 0, a11 = 0, a12 = 0, a13 = 0;
    int32_t a20 = 0, a21 = 0, a22 = 0, a23 = 0, a30 = 0, a31 = 0, a32 = 0, a33 = 0;
    for (size_t t = 0; t < tap_count; t++) {
        const size_t step = taps[t].step;
        const uint8_t *p0 = taps[t].base + at * step, *p1 = p0 + step, *p2 = p1 + step, *p3 = p2 + step;
        for (size_t left = taps[t].channels; left >= QUAD; left -= QUAD, w += BLOCK * QUAD - QUAD) {
            for (int i = 0; i < QUAD; i++, w++) {
                const int32_t w0 = w[0], w1 = w[QUAD], w2 = w[2 * QUAD], w3 = w[3 * QUAD];
                const int32_t x0 = *p0++, x1 = *p1++, x2 = *p2++, x3 = *p3++;
                a00 += w0 * x0, a01 += w1 * x0, a02 += w2 * x0, a03 += w3 * x0;
                a10 += w0 * x1, a11 += w1 * x1, a12 += w2 * x1, a13 += w3 * x1;
                a20 += w0 * x2, a21 += w1 * x2, a22 += w2 * x2, a23 += w3 * x2;
                a30 += w0 * x3, a31 += w1 * x3, a32 += w2 * x3, a33 += w3 * x3;
            }
        }
    }
    acc[0][0] = a00, acc[0][1] = a01, acc[0][2] = a02, acc[0][3] = a03, acc[1][0] = a10, acc[1][1] = a11, acc[1][2] = a12, acc[1][3] = a13;
    acc[2][0] = a20, acc[2][1] = a21, acc[2][2] = a22, acc[2][3] = a23, acc[3][0] = a30, acc[3][1] = a31, acc[3][2] = a32, acc[3][3] = a33;
}

#endif

/* The same of the one position `at`. */
static void portable_point(const remac_tap *taps, size_t tap_count, const int8_t *w, size_t at, int32_t acc[TILE])
{
    acc[0] = acc[1] = acc[2] = acc[3] = 0;
    for (size_t t = 0; t < tap_count; t++) {
        const uint8_t *p = taps[t].base + at * taps[t].step;
        for (size_t left = taps[t].channels; left >= QUAD; left -= QUAD, w += BLOCK * QUAD, p += QUAD) {
            for (size_t j = 0; j < TILE; j++)
                acc[j] += w[j * QUAD] * p[0] + w[j * QUAD + 1] * p[1] + w[j * QUAD + 2] * p[2] + w[j * QUAD + 3] * p[3];
        }
    }
}

static void portable_row(const remac_dense *layer, const remac_tap *taps, size_t tap_count, size_t positions, target to)
{
    for (size_t o = 0; o < layer->out; o += TILE) {
        const int8_t *w = layer->weight + o / BLOCK * BLOCK * layer->inputs + o % BLOCK * QUAD;
        for (size_t at = 0; at < positions;) {
            const size_t count = positions - at >= TILE ? TILE : 1;
            int32_t acc[TILE][TILE];
            if (count == TILE)
                portable_tile(taps, tap_count, w, at, acc);
            else
                portable_point(taps, tap_count, w, at, acc[0]);
            for (size_t p = 0; p < count; p++, at++) {
                for (size_t j = 0; j < TILE; j++)
                    store_one(layer, to, at, o + j, acc[p][j]);
            }
        }
    }
}

/* ---- choice of the instruction set ---- */

#if defined(REMAC_SIMD) && REMAC_SIMD >= 1 && defined(__GNUC__)
#include "kernels_simd.h"
#endif

int remac_path_usable(uint32_t path)
{
    switch (path) {
    case REMAC_PATH_PORTABLE:
        return 1;
#ifdef HAS_SSE41
    case REMAC_PATH_SSE41:
        return PROCESSOR_HAS("sse4.1");
#endif
#ifdef HAS_AVX2
    case REMAC_PATH_AVX2:
        return PROCESSOR_HAS("avx2");
#endif
#ifdef HAS_AVXVNNI
    case REMAC_PATH_AVXVNNI:
        return processor_has_avxvnni();
#endif
#ifdef HAS_AVX512VNNI
    case REMAC_PATH_AVX512VNNI:
        return PROCESSOR_HAS("avx512vnni") && PROCESSOR_HAS("avx512bw") && PROCESSOR_HAS("avx512vl");
#endif
#ifdef HAS_NEON
    case REMAC_PATH_NEON:
        return 1;
#endif
#ifdef TARGET_DOTPROD
    case REMAC_PATH_DOTPROD:
        return PROCESSOR_HAS_DOTPROD;
#endif
    default:
        return 0;
    }
}

uint32_t remac_path_best(void)
{
    uint32_t path = REMAC_PATH_COUNT - 1;
    while (!remac_path_usable(path))
        path--;
    return path;
}

static void row(const remac_dense *layer, const remac_tap *taps, size_t tap_count, size_t positions, target to)
{
    switch (layer->path == REMAC_PATH_BEST ? remac_path_best() : layer->path) {
#ifdef HAS_SSE41
    case REMAC_PATH_SSE41:
        row_sse41(layer, taps, tap_count, positions, to);
        break;
#endif
#ifdef HAS_AVX2
    case REMAC_PATH_AVX2:
        row_avx2(layer, taps, tap_count, positions, to);
        break;
#endif
#ifdef HAS_AVXVNNI
    case REMAC_PATH_AVXVNNI:
        row_avxvnni(layer, taps, tap_count, positions, to);
        break;
#endif
#ifdef HAS_AVX512VNNI
    case REMAC_PATH_AVX512VNNI:
        row_avx512vnni(layer, taps, tap_count, positions, to);
        break;
#endif
#ifdef HAS_NEON
    case REMAC_PATH_NEON:
        row_neon(layer, taps, tap_count, positions, to);
        break;
#endif
#ifdef TARGET_DOTPROD
    case REMAC_PATH_DOTPROD:
        row_dotprod(layer, taps, tap_count, positions, to);
        break;
#endif
    default:
        portable_row(layer, taps, tap_count, positions, to);
    }
}

void remac_row_u8(const remac_dense *layer, const remac_tap *taps, size_t tap_count, size_t positions, uint8_t *out)
{
    const target to = {out, NULL};
    row(layer, taps, tap_count, positions, to);
}

void remac_row_i32(const remac_dense *layer, const remac_tap *taps, size_t tap_count, size_t positions, int32_t *out)
{
    const target to = {NULL, out};
    row(layer, taps, tap_count, positions, to);
}
