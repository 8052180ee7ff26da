/* SPDX-License-Identifier: MIT */
/*
 * A row of a layer for one instruction set; kernels_simd.h includes this file once for each, with these macros defined:
 *   SIMD_NAME(x)          x with the name of the instruction set appended
 *   SIMD_TARGET           attribute that lets the compiler use it
 *   SIMD_BLOCKS, SIMD_POSITIONS   size of a tile: blocks of 16 outputs and positions, whose accumulators stay in registers
 *   SIMD_ACC, SIMD_ACCS   type of accumulators and how many hold a block of 16 outputs; SIMD_ZERO() is an empty one
 *   SIMD_WEIGHT, SIMD_LOAD(p)     type of a vector of weights, those from p on; SIMD_ACCS of them hold 16 outputs x 4 inputs
 *   SIMD_INPUT, SIMD_SPREAD(p)    4 inputs from p on, repeated over a vector
 *   SIMD_DOT(acc, x, w)   acc + products, of inputs less SIMD_ZERO_POINT
 *   SIMD_STORE(p, acc)    SIMD_ACCS accumulators to int32[16]
 *   SIMD_FINISH_U8(steps, acc, out), SIMD_FINISH_I32(steps, acc, out)   int32[16] to 16 results
 * Loops with constant bounds are marked UNROLL, without which the arrays would not become registers.
 */

/* acc[position][block][output] of `positions` places from `at` on and `blocks` blocks, whose weights are `next_block` bytes apart. The first `count`
 * places are positions, the others repeat the last one. Both sizes are constants wherever this is inlined. */
SIMD_TARGET ALWAYS_INLINE void SIMD_NAME(sums)(const remac_tap *taps, size_t tap_count, const int8_t *w, size_t next_block, size_t at, size_t count,
                                               int32_t *out, const int positions, const int blocks)
{
    SIMD_ACC acc[SIMD_POSITIONS][SIMD_BLOCKS * SIMD_ACCS];
    UNROLL
    for (int p = 0; p < positions; p++) {
        UNROLL
        for (int v = 0; v < blocks * SIMD_ACCS; v++)
            acc[p][v] = SIMD_ZERO();
    }
    for (size_t t = 0; t < tap_count; t++) {
        const size_t channels = taps[t].channels, step = taps[t].step;
        const uint8_t *x[SIMD_POSITIONS];
        x[0] = taps[t].base + at * step;
        UNROLL
        for (int p = 1; p < positions; p++)
            x[p] = x[p - 1] + ((size_t)p < count ? step : 0);
        for (size_t c = 0; c < channels; c += QUAD) {
            SIMD_WEIGHT weight[SIMD_BLOCKS * SIMD_ACCS];
            UNROLL
            for (int v = 0; v < blocks * SIMD_ACCS; v++)
                weight[v] = SIMD_LOAD(w + (v < SIMD_ACCS ? 0 : next_block) + v % SIMD_ACCS * (BLOCK * QUAD / SIMD_ACCS));
            UNROLL
            for (int p = 0; p < positions; p++) {
                const SIMD_INPUT input = SIMD_SPREAD(x[p] + c);
                UNROLL
                for (int v = 0; v < blocks * SIMD_ACCS; v++)
                    acc[p][v] = SIMD_DOT(acc[p][v], input, weight[v]);
            }
            w += BLOCK * QUAD;
        }
    }
    UNROLL
    for (int p = 0; p < positions; p++) {
        UNROLL
        for (int b = 0; b < blocks; b++)
            SIMD_STORE(out + (p * blocks + b) * BLOCK, &acc[p][b * SIMD_ACCS]);
    }
}

/* The sizes of tiles: SIMD_POSITIONS places or, where SIMD_REST of them do, as many; SIMD_BLOCKS blocks or a single one. */
#define SUMS(name, positions, blocks)                                                                                                                \
    SIMD_TARGET static NOT_INLINE void SIMD_NAME(name)(const remac_tap *taps, size_t tap_count, const int8_t *w, size_t next_block, size_t at,       \
                                                       size_t count, int32_t *out)                                                                   \
    {                                                                                                                                                \
        SIMD_NAME(sums)(taps, tap_count, w, next_block, at, count, out, positions, blocks);                                                          \
    }
SUMS(tile, SIMD_POSITIONS, SIMD_BLOCKS)
SUMS(tile_rest, SIMD_REST, SIMD_BLOCKS)
#if SIMD_BLOCKS > 1
SUMS(tile_single, SIMD_POSITIONS, 1)
#endif
#undef SUMS

/* A block of `count` positions, whose accumulators lie `blocks` blocks apart. The last block of a layer may end beyond its outputs. */
SIMD_TARGET static NOT_INLINE void SIMD_NAME(finish_u8)(const requantiser *restrict steps, const int32_t *restrict acc, size_t blocks, size_t count,
                                                        size_t outputs, size_t next, uint8_t *restrict out)
{
    uint8_t part[BLOCK];
    for (size_t p = 0; p < count; p++, acc += blocks * BLOCK, out += next) {
        SIMD_FINISH_U8(steps, acc, outputs < BLOCK ? part : out);
        if (outputs < BLOCK)
            memcpy(out, part, outputs);
    }
}

SIMD_TARGET static NOT_INLINE void SIMD_NAME(finish_i32)(const requantiser *restrict steps, const int32_t *restrict acc, size_t blocks, size_t count,
                                                         size_t outputs, size_t next, int32_t *restrict out)
{
    int32_t part[BLOCK];
    for (size_t p = 0; p < count; p++, acc += blocks * BLOCK, out += next) {
        SIMD_FINISH_I32(steps, acc, outputs < BLOCK ? part : out);
        if (outputs < BLOCK)
            memcpy(out, part, outputs * sizeof *part);
    }
}

/* `blocks` blocks from `first` on: SIMD_BLOCKS, or one. */
SIMD_TARGET static void SIMD_NAME(blocks)(const remac_dense *layer, const remac_tap *taps, size_t tap_count, size_t positions, target to,
                                          size_t first, size_t blocks)
{
    const size_t bytes = (size_t)BLOCK * layer->inputs;
    const int8_t *const w = layer->weight + first * bytes;
    requantiser steps[SIMD_BLOCKS];
    size_t count = 0;
    for (size_t b = 0; b < blocks; b++)
        prepare(&steps[b], layer, first + b, SIMD_ZERO_POINT);
    for (size_t at = 0; at < positions; at += count) {
        int32_t acc[SIMD_POSITIONS * SIMD_BLOCKS * BLOCK];
        const size_t left = positions - at;
        count = left < SIMD_POSITIONS ? left : SIMD_POSITIONS;
#if SIMD_BLOCKS > 1
        if (blocks == 1)
            SIMD_NAME(tile_single)(taps, tap_count, w, 0, at, count, acc);
        else
#endif
        if (left > SIMD_POSITIONS - SIMD_REST)
            SIMD_NAME(tile)(taps, tap_count, w, bytes, at, count, acc);
        else {
            count = left < SIMD_REST ? left : SIMD_REST;
            SIMD_NAME(tile_rest)(taps, tap_count, w, bytes, at, count, acc);
        }
        for (size_t b = 0; b < blocks; b++) {
            const size_t o = (first + b) * BLOCK, outputs = layer->out - o < BLOCK ? layer->out - o : BLOCK, place = at * layer->out + o;
            if (to.u8 != NULL)
                SIMD_NAME(finish_u8)(&steps[b], acc + b * BLOCK, blocks, count, outputs, layer->out, to.u8 + place);
            else
                SIMD_NAME(finish_i32)(&steps[b], acc + b * BLOCK, blocks, count, outputs, layer->out, to.i32 + place);
        }
    }
}

SIMD_TARGET static void SIMD_NAME(row)(const remac_dense *layer, const remac_tap *taps, size_t tap_count, size_t positions, target to)
{
    const size_t blocks = ((size_t)layer->out + BLOCK - 1) / BLOCK;
    for (size_t first = 0; first < blocks; first += SIMD_BLOCKS)
        SIMD_NAME(blocks)(layer, taps, tap_count, positions, to, first, blocks - first < SIMD_BLOCKS ? 1 : SIMD_BLOCKS);
}

#undef SIMD_NAME
#undef SIMD_TARGET
#undef SIMD_BLOCKS
#undef SIMD_POSITIONS
#undef SIMD_REST
#undef SIMD_ACC
#undef SIMD_ACCS
#undef SIMD_ZERO
#undef SIMD_WEIGHT
#undef SIMD_LOAD
#undef SIMD_INPUT
#undef SIMD_SPREAD
#undef SIMD_DOT
#undef SIMD_STORE
#undef SIMD_FINISH_U8
#undef SIMD_FINISH_I32
#undef SIMD_ZERO_POINT
