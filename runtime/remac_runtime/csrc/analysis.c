/* SPDX-License-Identifier: MIT */
/* See analysis.h. Comments cite the rule of runtime/FORMAT.md. */
#include "analysis.h"

#include <string.h>

#define STEM_RING 4u   /* body row 2s - 1 looks at stem rows 2s - 2 .. 2s when stem row 2s + 1 is there */
#define BODY_RING 4u   /* reduce row s - 1 looks at body rows 2s - 3 .. 2s - 1 when body row 2s is there */
#define REDUCE_RING 4u /* deep row s - 2 looks at reduce rows s - 3 .. s - 1; at the end of the picture reduce row s is there too */
#define STRIP_RING 3u  /* the head of row s - 2 looks at its pixels when strip s is there */

size_t remac_analysis_bytes(const remac_dense *layers, size_t width)
{
    const size_t stem = layers[REMAC_STEM].out, body = layers[REMAC_BODY].out, reduce = layers[REMAC_REDUCE].out;
    return REMAC_ANALYSIS_BYTES(width, stem, body, reduce, (size_t)layers[REMAC_DEEP].out, (size_t)layers[REMAC_HYPER_IN].out);
}

static uint8_t *cut(uint8_t **memory, size_t bytes)
{
    uint8_t *const start = *memory;
    *memory += bytes;
    return start;
}

void remac_analysis_start(remac_analysis *a, const remac_dense *layers, size_t width, size_t height, uint8_t *memory, uint32_t *texture,
                          uint32_t *semantic)
{
    memset(memory, 0, remac_analysis_bytes(layers, width)); /* the margins of the rows, and the zero row, stay 0 */
    a->layers = layers;
    a->width = width;
    a->height = height;
    a->pixels = cut(&memory, STRIP_RING * REMAC_STRIP_ROWS * 3 * width);
    a->stem = cut(&memory, STEM_RING * REMAC_ANALYSIS_ROW(width, 8, layers[REMAC_STEM].out));
    a->body = cut(&memory, BODY_RING * REMAC_ANALYSIS_ROW(width, 8, layers[REMAC_BODY].out));
    a->reduce = cut(&memory, REDUCE_RING * REMAC_ANALYSIS_ROW(width, 16, layers[REMAC_REDUCE].out));
    a->deep = cut(&memory, 2 * (width / 16) * layers[REMAC_DEEP].out);
    a->hyper_in = cut(&memory, 2 * (width / 32) * layers[REMAC_HYPER_IN].out);
    a->zero = memory;
    a->texture = texture;
    a->semantic = semantic;
    a->strips = 0;
    a->rows = 0;
    if (texture != NULL)
        memset(texture, 0, layers[REMAC_BODY].out * sizeof *texture);
    if (semantic != NULL)
        memset(semantic, 0, layers[REMAC_DEEP].out * sizeof *semantic);
}

static uint8_t *strip_at(const remac_analysis *a, size_t strip)
{
    return a->pixels + strip % STRIP_RING * (REMAC_STRIP_ROWS * 3 * a->width);
}

uint8_t *remac_analysis_strip(remac_analysis *a)
{
    return strip_at(a, a->strips);
}

const uint8_t *remac_analysis_previous(const remac_analysis *a)
{
    return a->strips > 0 ? strip_at(a, a->strips - 1) : NULL;
}

/* Row `row` of a layer in its ring, the zero position in front included; the zero row where the picture has no such row. */
static const uint8_t *window_row(const remac_analysis *a, const uint8_t *ring, size_t rows, size_t row, size_t row_bytes, size_t height)
{
    return row < height ? ring + row % rows * row_bytes : a->zero; /* row -1 wraps and is outside, too */
}

/* Row `row` of the 3x3 layer `layer`, whose input has `columns` and `height` positions: the three positions of a window's row are one tap. */
static void convolve(const remac_analysis *a, size_t layer, const uint8_t *ring, size_t columns, size_t height, size_t stride, size_t row,
                     uint8_t *out)
{
    const remac_dense *const dense = &a->layers[layer];
    const size_t channels = dense->inputs / 9, row_bytes = (columns + 2) * channels;
    remac_tap taps[3];
    for (size_t dy = 0; dy < 3; dy++) {
        taps[dy].base = window_row(a, ring, 4, row * stride + dy - 1, row_bytes, height);
        taps[dy].step = stride * channels;
        taps[dy].channels = 3 * channels;
    }
    remac_row_u8(dense, taps, 3, columns / stride, out);
}

static void add_up(size_t positions, size_t channels, const uint8_t *values, uint32_t *sums)
{
    for (size_t p = 0; p < positions; p++) {
        for (size_t c = 0; c < channels; c++)
            sums[c] += values[p * channels + c];
    }
}

/* FORMAT 5.2, space-to-depth 8: a pixel row of a block is one tap. */
static void stem_row(remac_analysis *a, size_t row)
{
    const remac_dense *const dense = &a->layers[REMAC_STEM];
    const uint8_t *const pixels = strip_at(a, row / 2) + row % 2 * (8 * 3 * a->width);
    remac_tap taps[8];
    for (size_t dy = 0; dy < 8; dy++) {
        taps[dy].base = pixels + dy * (3 * a->width);
        taps[dy].step = 24;
        taps[dy].channels = 24;
    }
    remac_row_u8(dense, taps, 8, a->width / 8, a->stem + row % STEM_RING * REMAC_ANALYSIS_ROW(a->width, 8, dense->out) + dense->out);
}

static void body_row(remac_analysis *a, size_t row)
{
    const size_t channels = a->layers[REMAC_BODY].out;
    uint8_t *const out = a->body + row % BODY_RING * REMAC_ANALYSIS_ROW(a->width, 8, channels) + channels;
    convolve(a, REMAC_BODY, a->stem, a->width / 8, a->height / 8, 1, row, out);
    if (a->texture != NULL)
        add_up(a->width / 8, channels, out, a->texture);
}

static void reduce_row(remac_analysis *a, size_t row)
{
    const size_t channels = a->layers[REMAC_REDUCE].out;
    uint8_t *const out = a->reduce + row % REDUCE_RING * REMAC_ANALYSIS_ROW(a->width, 16, channels) + channels;
    convolve(a, REMAC_REDUCE, a->body, a->width / 8, a->height / 8, 2, row, out);
}

void remac_analysis_push(remac_analysis *a)
{
    const size_t s = a->strips++;
    stem_row(a, 2 * s);
    stem_row(a, 2 * s + 1);
    if (s > 0) {
        body_row(a, 2 * s - 1);
        body_row(a, 2 * s);
        reduce_row(a, s - 1);
    } else {
        body_row(a, 0);
    }
    if (a->strips == a->height / REMAC_STRIP_ROWS) {
        body_row(a, 2 * s + 1);
        reduce_row(a, s);
    }
}

int remac_analysis_ready(const remac_analysis *a)
{
    return a->rows < a->strips && (a->rows + 2 < a->strips || a->strips == a->height / REMAC_STRIP_ROWS);
}

/* FORMAT 4.2: the head looks at deep, then at space-to-depth 16 of the pixels. */
static void head_row(const remac_analysis *a, const uint8_t *deep, int32_t *y)
{
    const uint8_t *const pixels = strip_at(a, a->rows);
    remac_tap taps[1 + REMAC_STRIP_ROWS];
    taps[0].base = deep;
    taps[0].step = a->layers[REMAC_DEEP].out;
    taps[0].channels = taps[0].step;
    for (size_t dy = 0; dy < REMAC_STRIP_ROWS; dy++) {
        taps[1 + dy].base = pixels + dy * (3 * a->width);
        taps[1 + dy].step = 48;
        taps[1 + dy].channels = 48;
    }
    remac_row_i32(&a->layers[REMAC_HEAD], taps, 1 + REMAC_STRIP_ROWS, a->width / 16, y);
}

/* A pointwise layer on space-to-depth 2: each of the two rows, one behind the other in memory, is one tap. */
static void halve(const remac_dense *dense, const uint8_t *rows, size_t channels, size_t columns, uint8_t *out)
{
    remac_tap taps[2];
    for (size_t dy = 0; dy < 2; dy++) {
        taps[dy].base = rows + dy * columns * channels;
        taps[dy].step = 2 * channels;
        taps[dy].channels = 2 * channels;
    }
    remac_row_u8(dense, taps, 2, columns / 2, out);
}

void remac_analysis_row(remac_analysis *a, int32_t *y, uint8_t *z)
{
    const remac_dense *const layers = a->layers;
    const size_t row = a->rows, columns = a->width / 16;
    const size_t deep_channels = layers[REMAC_DEEP].out, hyper_channels = layers[REMAC_HYPER_IN].out;
    uint8_t *const deep = a->deep + row % 2 * columns * deep_channels;
    convolve(a, REMAC_DEEP, a->reduce, columns, a->height / 16, 1, row, deep);
    if (a->semantic != NULL)
        add_up(columns, deep_channels, deep, a->semantic);
    if (y != NULL)
        head_row(a, deep, y);
    if (z != NULL && row % 2 == 1) {
        halve(&layers[REMAC_HYPER_IN], a->deep, deep_channels, columns, a->hyper_in + row / 2 % 2 * (columns / 2) * hyper_channels);
        if (row % 4 == 3)
            halve(&layers[REMAC_HYPER_OUT], a->hyper_in, hyper_channels, columns / 2, z);
    }
    a->rows = row + 1;
}
