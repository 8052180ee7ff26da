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

/* The tiles: SIMD_POSITIONS places or, at the end of a row, SIMD_REST; of an odd number of blocks the last one comes alone. */
SIMD_TARGET static NOT_INLINE void SIMD_NAME(tile)(const remac_tap *taps, size_t tap_count, const int8_t *w, size_t next_block, size_t at,
                                                   size_t count, int32_t *out)
{
    SIMD_NAME(sums)(taps, tap_count, w, next_block, at, count, out, SIMD_POSITIONS, SIMD_BLOCKS);
}

SIMD_TARGET static NOT_INLINE void SIMD_NAME(tile_rest)(const remac_tap *taps, size_t tap_count, const int8_t *w, size_t next_block, size_t at,
                                                        size_t count, int32_t *out)
{
    SIMD_NAME(sums)(taps, tap_count, w, next_block, at, count, out, SIMD_REST, SIMD_BLOCKS);
}

#if SIMD_BLOCKS > 1
SIMD_TARGET static NOT_INLINE void SIMD_NAME(tile_single)(const remac_tap *taps, size_t tap_count, const int8_t *w, size_t at, size_t count,
                                                          int32_t *out)
{
    SIMD_NAME(sums)(taps, tap_count, w, 0, at, count, out, SIMD_POSITIONS, 1);
}
#endif

/* A block of `count` positions from `at` on; its accumulators lie SIMD_BLOCKS blocks apart. The last block of a layer may end beyond its outputs. */
SIMD_TARGET static NOT_INLINE void SIMD_NAME(finish_u8)(const requantiser *restrict steps, const int32_t *restrict acc, size_t count, size_t outputs,
                                                        size_t next, uint8_t *restrict out)
{
    uint8_t part[BLOCK];
    for (size_t p = 0; p < count; p++, acc += SIMD_BLOCKS * BLOCK, out += next) {
        SIMD_FINISH_U8(steps, acc, outputs < BLOCK ? part : out);
        if (outputs < BLOCK)
            memcpy(out, part, outputs);
    }
}

SIMD_TARGET static NOT_INLINE void SIMD_NAME(finish_i32)(const requantiser *restrict steps, const int32_t *restrict acc, size_t count, size_t outputs,
                                                         size_t next, int32_t *restrict out)
{
    int32_t part[BLOCK];
    for (size_t p = 0; p < count; p++, acc += SIMD_BLOCKS * BLOCK, out += next) {
        SIMD_FINISH_I32(steps, acc, outputs < BLOCK ? part : out);
        if (outputs < BLOCK)
            memcpy(out, part, outputs * sizeof *part);
    }
}

/* Of an odd number of blocks two at a time, the last one comes twice. */
SIMD_TARGET static void SIMD_NAME(row)(const remac_dense *layer, const remac_tap *taps, size_t tap_count, size_t positions, target to)
{
    const size_t blocks = ((size_t)layer->out + BLOCK - 1) / BLOCK, bytes = (size_t)BLOCK * layer->inputs;
    for (size_t first = 0; first < blocks; first += SIMD_BLOCKS) {
        const size_t last = first + SIMD_BLOCKS - 1 < blocks ? first + SIMD_BLOCKS - 1 : first;
        requantiser steps[SIMD_BLOCKS];
        for (size_t block = first; block <= last; block++)
            prepare(&steps[block - first], layer, block, SIMD_ZERO_POINT);
        for (size_t at = 0; at < positions; at += SIMD_POSITIONS) {
            const size_t count = positions - at < SIMD_POSITIONS ? positions - at : SIMD_POSITIONS;
            int32_t acc[SIMD_POSITIONS * SIMD_BLOCKS * BLOCK];
            SIMD_NAME(tile)(taps, tap_count, layer->weight + first * bytes, (last - first) * bytes, at, count, acc);
            for (size_t block = first; block <= last; block++) {
                const size_t o = block * BLOCK, outputs = layer->out - o < BLOCK ? layer->out - o : BLOCK, place = at * layer->out + o;
                if (to.u8 != NULL)
                    SIMD_NAME(finish_u8)(&steps[block - first], acc + (block - first) * BLOCK, count, outputs, layer->out, to.u8 + place);
                else
                    SIMD_NAME(finish_i32)(&steps[block - first], acc + (block - first) * BLOCK, count, outputs, layer->out, to.i32 + place);
            }
        }
    }
}

#undef SIMD_NAME
#undef SIMD_TARGET
#undef SIMD_BLOCKS
#undef SIMD_POSITIONS
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
