/* SPDX-License-Identifier: MIT */
/*
 * The instruction sets that kernels.c may use beside portable C (REMAC_SIMD of kernels.h); part of kernels.c, which includes it after its own
 * helpers. Defines HAS_... for each that is compiled in. GCC and Clang only: others compile the portable path.
 */
#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define NOT_INLINE __attribute__((noinline)) /* compilers would unroll the function into every place that calls it */
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* FORMAT 5.1 without branches for the 16 outputs of a block; zeros beyond `out`. */
typedef struct {
    int32_t bias[BLOCK];
    int32_t scale[BLOCK]; /* 2^-shift of left shifts, else 1 */
    int32_t right[BLOCK]; /* right shift, or 0 */
    int32_t half[BLOCK];  /* 2^(right - 1) - 1, or 0 */
    int32_t odd[BLOCK];   /* 1, or 0 where nothing is rounded */
} requantiser;

/* `zero_point` is what the kernel took from every input: it belongs to the bias, times the sum of the weights (|.| < 2^25). */
ALWAYS_INLINE void prepare(requantiser *steps, const remac_dense *layer, size_t block, const int32_t zero_point)
{
    memset(steps, 0, sizeof *steps);
    if (zero_point != 0) {
        const int8_t *w = layer->weight + block * BLOCK * layer->inputs;
        int32_t sum[BLOCK * QUAD] = {0};
        for (size_t left = layer->inputs; left >= QUAD; left -= QUAD, w += BLOCK * QUAD) {
            for (size_t i = 0; i < BLOCK * QUAD; i++)
                sum[i] += w[i];
        }
        for (size_t j = 0; j < BLOCK; j++)
            steps->bias[j] = zero_point * (sum[QUAD * j] + sum[QUAD * j + 1] + sum[QUAD * j + 2] + sum[QUAD * j + 3]);
    }
    for (size_t j = 0; j < BLOCK && block * BLOCK + j < layer->out; j++) {
        const int shift = layer->shift[block * BLOCK + j];
        steps->bias[j] += layer->bias[block * BLOCK + j];
        steps->scale[j] = INT32_C(1) << (shift < 0 ? -shift : 0);
        steps->right[j] = shift > 0 ? shift : 0;
        steps->half[j] = shift > 0 ? (INT32_C(1) << (shift - 1)) - 1 : 0;
        steps->odd[j] = shift > 0;
    }
}

/* One block of one position in plain C: loops of constant length. */
ALWAYS_INLINE void finish_u8_plain(const requantiser *steps, const int32_t *acc, uint8_t *out)
{
    for (size_t j = 0; j < BLOCK; j++) {
        const int32_t a = acc[j] + steps->bias[j];
        const int32_t value = (a + steps->half[j] + ((a >> steps->right[j]) & steps->odd[j])) >> steps->right[j];
        out[j] = clamp_u8(value);
    }
}

ALWAYS_INLINE void finish_i32_plain(const requantiser *steps, const int32_t *acc, int32_t *out)
{
    for (size_t j = 0; j < BLOCK; j++) {
        const int32_t a = (acc[j] + steps->bias[j]) * steps->scale[j];
        out[j] = (a + steps->half[j] + ((a >> steps->right[j]) & steps->odd[j])) >> steps->right[j];
    }
}

ALWAYS_INLINE int32_t load_quad(const uint8_t *p)
{
    int32_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* ---- x86-64: u8 x i8 products in pairs. |weight| <= 64 keeps a pair within int16: 2 * 255 * 64 = 32640, so nothing saturates ---- */

#if defined(__x86_64__)
#include <immintrin.h>

#if REMAC_SIMD >= 2
#define TARGET(sets) __attribute__((target(sets)))
#define PROCESSOR_HAS(set) (__builtin_cpu_supports(set) != 0)
#define HAS_SSE41
#define HAS_AVX2
#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#include <cpuid.h>
#define HAS_AVXVNNI
/* AVX2 says that the system saves the registers; CPUID leaf 7, sub-leaf 1, bit 4 of EAX is AVX-VNNI, which not every compiler can name. */
static inline int processor_has_avxvnni(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    return PROCESSOR_HAS("avx2") && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0;
}
#endif
#if defined(__clang__) || __GNUC__ >= 8
#define HAS_AVX512VNNI
#endif
#else
#define TARGET(sets)
#define PROCESSOR_HAS(set) 1
#define processor_has_avxvnni() 1
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAS_AVX512VNNI
#elif defined(__AVXVNNI__)
#define HAS_AVXVNNI
#elif defined(__AVX2__)
#define HAS_AVX2
#elif defined(__SSE4_1__)
#define HAS_SSE41
#endif
#endif

#ifdef HAS_SSE41
#define SIMD_NAME(x) x##_sse41
#define SIMD_TARGET TARGET("sse4.1")
#define SIMD_BLOCKS 1
#define SIMD_POSITIONS 2
#define SIMD_REST 1
#define SIMD_ACC __m128i
#define SIMD_ACCS 4
#define SIMD_ZERO() _mm_setzero_si128()
#define SIMD_WEIGHT __m128i
#define SIMD_LOAD(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define SIMD_INPUT __m128i
#define SIMD_SPREAD(p) _mm_set1_epi32(load_quad(p))
#define SIMD_DOT(acc, x, w) _mm_add_epi32(acc, _mm_madd_epi16(_mm_maddubs_epi16(x, w), _mm_set1_epi16(1)))
#define SIMD_STORE(p, acc)                                                                                                                           \
    do {                                                                                                                                             \
        UNROLL                                                                                                                                       \
        for (int i = 0; i < 4; i++)                                                                                                                  \
            _mm_storeu_si128((__m128i *)(void *)((p) + 4 * i), (acc)[i]);                                                                            \
    } while (0)
#define SIMD_FINISH_U8(steps, acc, out) finish_u8_plain(steps, acc, out)
#define SIMD_FINISH_I32(steps, acc, out) finish_i32_plain(steps, acc, out)
#define SIMD_ZERO_POINT 0
#include "kernels_tile.h"
#endif

#if defined(HAS_AVX2) || defined(HAS_AVXVNNI)
#define LOAD_256(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define STORE_256(p, acc)                                                                                                                            \
    do {                                                                                                                                             \
        _mm256_storeu_si256((__m256i *)(void *)(p), (acc)[0]);                                                                                       \
        _mm256_storeu_si256((__m256i *)(void *)((p) + 8), (acc)[1]);                                                                                 \
    } while (0)

/* rne of 8 accumulators from place j on; `scale` for heads, which may shift left. */
TARGET("avx2") ALWAYS_INLINE __m256i rne_256(const requantiser *steps, const int32_t *acc, size_t j, const int scaled)
{
    __m256i a = _mm256_add_epi32(LOAD_256(acc + j), LOAD_256(steps->bias + j));
    if (scaled)
        a = _mm256_mullo_epi32(a, LOAD_256(steps->scale + j));
    const __m256i right = LOAD_256(steps->right + j), tie = _mm256_and_si256(_mm256_srav_epi32(a, right), LOAD_256(steps->odd + j));
    return _mm256_srav_epi32(_mm256_add_epi32(_mm256_add_epi32(a, LOAD_256(steps->half + j)), tie), right);
}

TARGET("avx2") ALWAYS_INLINE void finish_u8_256(const requantiser *steps, const int32_t *acc, uint8_t *out)
{
    const __m256i words = _mm256_packus_epi32(rne_256(steps, acc, 0, 0), rne_256(steps, acc, 8, 0)); /* clamped to 0..65535; halves interleaved */
    const __m256i ordered = _mm256_min_epu16(_mm256_permute4x64_epi64(words, 0xD8), _mm256_set1_epi16(255));
    _mm_storeu_si128((__m128i *)(void *)out, _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
}

TARGET("avx2") ALWAYS_INLINE void finish_i32_256(const requantiser *steps, const int32_t *acc, int32_t *out)
{
    _mm256_storeu_si256((__m256i *)(void *)out, rne_256(steps, acc, 0, 1));
    _mm256_storeu_si256((__m256i *)(void *)(out + 8), rne_256(steps, acc, 8, 1));
}
#endif

#ifdef HAS_AVX2
#define SIMD_NAME(x) x##_avx2
#define SIMD_TARGET TARGET("avx2")
#define SIMD_BLOCKS 1
#define SIMD_POSITIONS 4
#define SIMD_REST 2
#define SIMD_ACC __m256i
#define SIMD_ACCS 2
#define SIMD_ZERO() _mm256_setzero_si256()
#define SIMD_WEIGHT __m256i
#define SIMD_LOAD(p) LOAD_256(p)
#define SIMD_INPUT __m256i
#define SIMD_SPREAD(p) _mm256_set1_epi32(load_quad(p))
#define SIMD_DOT(acc, x, w) _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)))
#define SIMD_STORE(p, acc) STORE_256(p, acc)
#define SIMD_FINISH_U8(steps, acc, out) finish_u8_256(steps, acc, out)
#define SIMD_FINISH_I32(steps, acc, out) finish_i32_256(steps, acc, out)
#define SIMD_ZERO_POINT 0
#include "kernels_tile.h"
#endif

#ifdef HAS_AVXVNNI
#define SIMD_NAME(x) x##_avxvnni
#define SIMD_TARGET TARGET("avx2,avxvnni")
#define SIMD_BLOCKS 1
#define SIMD_POSITIONS 6
#define SIMD_REST 2
#define SIMD_ACC __m256i
#define SIMD_ACCS 2
#define SIMD_ZERO() _mm256_setzero_si256()
#define SIMD_WEIGHT __m256i
#define SIMD_LOAD(p) LOAD_256(p)
#define SIMD_INPUT __m256i
#define SIMD_SPREAD(p) _mm256_set1_epi32(load_quad(p))
#define SIMD_DOT(acc, x, w) _mm256_dpbusd_avx_epi32(acc, x, w)
#define SIMD_STORE(p, acc) STORE_256(p, acc)
#define SIMD_FINISH_U8(steps, acc, out) finish_u8_256(steps, acc, out)
#define SIMD_FINISH_I32(steps, acc, out) finish_i32_256(steps, acc, out)
#define SIMD_ZERO_POINT 0
#include "kernels_tile.h"
#endif

#ifdef HAS_AVX512VNNI
#define SETS_512 "avx512f,avx512bw,avx512vl,avx512vnni"

TARGET(SETS_512) ALWAYS_INLINE __m512i rne_512(const requantiser *steps, const int32_t *acc, const int scaled)
{
    __m512i a = _mm512_add_epi32(_mm512_loadu_si512(acc), _mm512_loadu_si512(steps->bias));
    if (scaled)
        a = _mm512_mullo_epi32(a, _mm512_loadu_si512(steps->scale));
    const __m512i right = _mm512_loadu_si512(steps->right), tie = _mm512_and_si512(_mm512_srav_epi32(a, right), _mm512_loadu_si512(steps->odd));
    return _mm512_srav_epi32(_mm512_add_epi32(_mm512_add_epi32(a, _mm512_loadu_si512(steps->half)), tie), right);
}

TARGET(SETS_512) ALWAYS_INLINE void finish_u8_512(const requantiser *steps, const int32_t *acc, uint8_t *out)
{
    const __m512i value = _mm512_max_epi32(rne_512(steps, acc, 0), _mm512_setzero_si512());
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtusepi32_epi8(value));
}

TARGET(SETS_512) ALWAYS_INLINE void finish_i32_512(const requantiser *steps, const int32_t *acc, int32_t *out)
{
    _mm512_storeu_si512((void *)out, rne_512(steps, acc, 1));
}

#define SIMD_NAME(x) x##_avx512vnni
#define SIMD_TARGET TARGET(SETS_512)
#define SIMD_BLOCKS 2
#define SIMD_POSITIONS 8
#define SIMD_REST 4
#define SIMD_ACC __m512i
#define SIMD_ACCS 1
#define SIMD_ZERO() _mm512_setzero_si512()
#define SIMD_WEIGHT __m512i
#define SIMD_LOAD(p) _mm512_loadu_si512((const void *)(p))
#define SIMD_INPUT __m512i
#define SIMD_SPREAD(p) _mm512_set1_epi32(load_quad(p))
#define SIMD_DOT(acc, x, w) _mm512_dpbusd_epi32(acc, x, w)
#define SIMD_STORE(p, acc) _mm512_storeu_si512((void *)(p), (acc)[0])
#define SIMD_FINISH_U8(steps, acc, out) finish_u8_512(steps, acc, out)
#define SIMD_FINISH_I32(steps, acc, out) finish_i32_512(steps, acc, out)
#define SIMD_ZERO_POINT 0
#include "kernels_tile.h"
#endif

/* ---- 64-bit ARM: i8 x i8 products of inputs less 128 ---- */

#elif defined(__aarch64__) && !defined(__ARM_BIG_ENDIAN)
#include <arm_neon.h>

#define HAS_NEON
#if defined(__ARM_FEATURE_DOTPROD)
#define TARGET_DOTPROD
#define PROCESSOR_HAS_DOTPROD 1
#elif REMAC_SIMD >= 2 && defined(__linux__) && ((defined(__clang__) && __clang_major__ >= 16) || (!defined(__clang__) && __GNUC__ >= 8))
#include <sys/auxv.h>
#define TARGET_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#define PROCESSOR_HAS_DOTPROD ((getauxval(AT_HWCAP) >> 20 & 1) != 0) /* HWCAP_ASIMDDP */
#endif

/* A product of -128 and -64 is 2^13, the sum of two lanes stays within int16 before it is widened. */
#define SIMD_NAME(x) x##_neon
#define SIMD_TARGET
#define SIMD_BLOCKS 1
#define SIMD_POSITIONS 2
#define SIMD_REST 1
#define SIMD_ACC int32x4_t
#define SIMD_ACCS 8 /* 2 outputs each, as two partial sums */
#define SIMD_ZERO() vdupq_n_s32(0)
#define SIMD_WEIGHT int8x8_t
#define SIMD_LOAD(p) vld1_s8(p)
#define SIMD_INPUT int8x8_t
#define SIMD_SPREAD(p) veor_s8(vreinterpret_s8_s32(vdup_n_s32(load_quad(p))), vdup_n_s8(INT8_MIN))
#define SIMD_DOT(acc, x, w) vpadalq_s16(acc, vmull_s8(x, w))
#define SIMD_STORE(p, acc)                                                                                                                           \
    do {                                                                                                                                             \
        UNROLL                                                                                                                                       \
        for (int i = 0; i < 4; i++)                                                                                                                  \
            vst1q_s32((p) + 4 * i, vpaddq_s32((acc)[2 * i], (acc)[2 * i + 1]));                                                                      \
    } while (0)
#define SIMD_FINISH_U8(steps, acc, out) finish_u8_plain(steps, acc, out)
#define SIMD_FINISH_I32(steps, acc, out) finish_i32_plain(steps, acc, out)
#define SIMD_ZERO_POINT 128
#include "kernels_tile.h"

#ifdef TARGET_DOTPROD
#define SIMD_NAME(x) x##_dotprod
#define SIMD_TARGET TARGET_DOTPROD
#define SIMD_BLOCKS 1
#define SIMD_POSITIONS 6
#define SIMD_REST 2
#define SIMD_ACC int32x4_t
#define SIMD_ACCS 4
#define SIMD_ZERO() vdupq_n_s32(0)
#define SIMD_WEIGHT int8x16_t
#define SIMD_LOAD(p) vld1q_s8(p)
#define SIMD_INPUT int8x16_t
#define SIMD_SPREAD(p) veorq_s8(vreinterpretq_s8_s32(vdupq_n_s32(load_quad(p))), vdupq_n_s8(INT8_MIN))
#define SIMD_DOT(acc, x, w) vdotq_s32(acc, x, w)
#define SIMD_STORE(p, acc)                                                                                                                           \
    do {                                                                                                                                             \
        UNROLL                                                                                                                                       \
        for (int i = 0; i < 4; i++)                                                                                                                  \
            vst1q_s32((p) + 4 * i, (acc)[i]);                                                                                                        \
    } while (0)
#define SIMD_FINISH_U8(steps, acc, out) finish_u8_plain(steps, acc, out)
#define SIMD_FINISH_I32(steps, acc, out) finish_i32_plain(steps, acc, out)
#define SIMD_ZERO_POINT 128
#include "kernels_tile.h"
#endif
#endif
