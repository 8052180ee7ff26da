/* SPDX-License-Identifier: MIT */
/* The most products of bytes a second that one core does: a chain of the widest dot products of the processor, all in registers. Prints the
 * multiply-accumulates a second of the fastest of some rounds. Built by roofline.py with -O2 -march=native. */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <string.h>
#include <time.h>

#define CHAINS 12 /* of EACH; independent ones: enough to hide the latency of the instruction, few enough for the registers */
#define ROUNDS 9
#define TURNS 4000000L
#define EACH(what) what(a0) what(a1) what(a2) what(a3) what(a4) what(a5) what(a6) what(a7) what(a8) what(a9) what(a10) what(a11)

#if defined(__AVX512VNNI__)
#include <immintrin.h>
typedef __m512i vector;
#define MACS 64
#define DOT(acc, x, w) _mm512_dpbusd_epi32(acc, x, w)
#elif defined(__AVXVNNI__)
#include <immintrin.h>
typedef __m256i vector;
#define MACS 32
#define DOT(acc, x, w) _mm256_dpbusd_avx_epi32(acc, x, w)
#elif defined(__AVX2__)
#include <immintrin.h>
typedef __m256i vector;
#define MACS 32
#define DOT(acc, x, w) _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_xor_si256(x, acc), w), _mm256_set1_epi16(1)))
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define REGISTER "+w"
typedef int32x4_t vector;
#define MACS 16
#define DOT(acc, x, w) vdotq_s32(acc, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w))
#else
#error "no dot products of bytes that this program knows"
#endif

#if !defined(REGISTER)
#define REGISTER "+v"
#endif

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time); /* not what others do meanwhile */
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

#define DECLARE(a) vector a = zero;
#define HIDE(a) __asm__ volatile("" : REGISTER(a)); /* no compiler may know that chains are alike, or leave them out */
#define STEP(a) a = DOT(a, x, w);

int main(void)
{
    vector zero, x, w;
    double best = 0;
    memset(&zero, 0, sizeof zero);
    memset(&x, 3, sizeof x);
    memset(&w, 5, sizeof w);
    EACH(DECLARE)
    for (int round = 0; round < ROUNDS; round++) {
        const double start = now();
        EACH(HIDE)
        for (long turn = 0; turn < TURNS; turn++) {
            EACH(STEP)
        }
        EACH(HIDE)
        const double rate = (double)CHAINS * MACS * TURNS / (now() - start);
        best = rate > best ? rate : best;
    }
    printf("%.0f\n", best);
    return 0;
}
