/* SPDX-License-Identifier: MIT */
/*
 * The integer layers of remac in C99 (runtime/FORMAT.md sections 5.1 and 5.2), a row of positions at a time: the same integers as reference.py from
 * every path below. No heap, no globals but constants, no recursion, no floating point, every loop bounded by an argument; all memory is the
 * caller's. Bytes and int32 words only, so the results are the same on processors of either endianness.
 *
 * One primitive does every layer. Its input is a list of taps: contiguous channels at a fixed byte step from one position to the next, which is a
 * pixel row of a space-to-depth, a row of a 3x3 window (three positions of `step` channels each are one tap of 3 * step channels), a concatenated
 * tensor or a neighbour. Taps may overlap.
 *
 * The bounds of FORMAT 1 are taken for granted, they were checked when the network was read: |weight| <= 64 and
 * sum |weight| * 255 + |bias| < 2^24 for every output, whatever the order of summation; head outputs below 2^26. Right shifts of negative integers
 * must be arithmetic (checked in kernels.c when it is compiled).
 *
 * REMAC_SIMD (a macro for the compiler) chooses what kernels.c contains:
 *   0 or undefined   portable C only
 *   1                also the widest of the instruction sets that the compiler was told the target has (-march=..., -mavx2, ...)
 *   2                also every instruction set the compiler knows for this architecture; the fastest that the processor has is found at run time
 */
#ifndef REMAC_KERNELS_H
#define REMAC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define REMAC_OUT_BLOCK 16   /* outputs are packed in blocks of it, the last one filled up with zero weights */
#define REMAC_INPUT_QUAD 4   /* inputs are packed in groups of it: the channels of every tap are a multiple of it */

typedef struct {
    const uint8_t *base; /* channel 0 of the tap at position 0 */
    size_t step;         /* bytes from one position to the next */
    size_t channels;     /* a multiple of REMAC_INPUT_QUAD */
} remac_tap;

/* Instruction sets; values are those of `path` below. */
enum {
    REMAC_PATH_BEST = 0, /* the fastest of those that are compiled in and that the processor has */
    REMAC_PATH_PORTABLE = 1,
    REMAC_PATH_SSE41 = 2,
    REMAC_PATH_AVX2 = 3,
    REMAC_PATH_AVXVNNI = 4,
    REMAC_PATH_AVX512VNNI = 5,
    REMAC_PATH_NEON = 6,
    REMAC_PATH_DOTPROD = 7,
    REMAC_PATH_COUNT = 8
};

typedef struct {
    const int8_t *weight; /* [ceil(out / 16)][inputs / 4][16][4], zeros beyond `out`; inputs in the order of the taps */
    const int32_t *bias;  /* [out] */
    const int8_t *shift;  /* [out]; 0..16, of heads -8..16 */
    uint32_t inputs;      /* sum of the taps' channels */
    uint32_t out;
    uint32_t path; /* REMAC_PATH_BEST, or one that remac_path_usable names */
} remac_dense;

/* FORMAT 5.2 with acc[p][o] = bias[o] + sum over taps t and channels i of weight * taps[t].base[p * taps[t].step + i]:
 * out[p][o] = clamp(rne(acc[p][o], shift[o]), 0, 255), o < layer->out, and of a head rne(acc[p][o], shift[o]). `out` overlaps no tap. */
void remac_row_u8(const remac_dense *layer, const remac_tap *taps, size_t tap_count, size_t positions, uint8_t *out);
void remac_row_i32(const remac_dense *layer, const remac_tap *taps, size_t tap_count, size_t positions, int32_t *out);

/* 1 if the path is compiled in and this processor has it, else 0. */
int remac_path_usable(uint32_t path);
/* What REMAC_PATH_BEST stands for here. */
uint32_t remac_path_best(void);

#endif
