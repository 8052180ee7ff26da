/* SPDX-License-Identifier: MIT */
/* See layers.h. */
#include "layers.h"

#include <string.h>

/* `rows` rows from `row` on, whose positions follow each other in every tap. */
static void run_rows(const remac_layer *layer, const remac_tap *taps, size_t count, size_t row, size_t rows)
{
    const size_t at = row * layer->columns * layer->dense.out;
    if (layer->head)
        remac_row_i32(&layer->dense, taps, count, rows * layer->columns, (int32_t *)layer->out + at);
    else
        remac_row_u8(&layer->dense, taps, count, rows * layer->columns, (uint8_t *)layer->out + at);
}

/* A row of `source` moved by dy, dx into slot[columns][channels]. */
static void move_row(const remac_layer *layer, const remac_source *source, size_t item, size_t row, uint8_t *slot)
{
    const size_t channels = source->channels, width = layer->columns * channels;
    const int outside = (source->dy < 0 && row == 0) || (source->dy > 0 && row + 1 == layer->rows);
    if (outside) {
        memset(slot, REMAC_OUTSIDE, width);
        return;
    }
    const size_t from = source->dy < 0 ? row - 1 : row + (size_t)source->dy;
    const uint8_t *data = source->data + (item * layer->rows + from) * width;
    if (source->dx < 0) {
        memset(slot, REMAC_OUTSIDE, channels);
        memcpy(slot + channels, data, width - channels);
    } else if (source->dx > 0) {
        memcpy(slot, data + channels, width - channels);
        memset(slot + width - channels, REMAC_OUTSIDE, channels);
    } else {
        memcpy(slot, data, width);
    }
}

/* How many rows of a pointwise layer run as one: short rows would leave much of their last tiles empty. */
static size_t rows_at_once(const remac_layer *layer)
{
    for (size_t s = 0; s < layer->sources; s++) {
        if (layer->source[s].block != 1)
            return 1;
    }
    return layer->columns < REMAC_RUN_POSITIONS ? REMAC_RUN_POSITIONS / layer->columns : 1;
}

static void run_points(const remac_layer *layer, size_t first, size_t last, uint8_t *scratch)
{
    const size_t most = rows_at_once(layer);
    for (size_t row = first, rows; row < last; row += rows) {
        remac_tap taps[REMAC_TAPS_MAX];
        size_t count = 0;
        uint8_t *slot = scratch;
        rows = last - row < most ? last - row : most;
        for (size_t s = 0; s < layer->sources; s++) {
            const remac_source *source = &layer->source[s];
            const size_t step = source->block * source->channels, width = layer->columns * step;
            if (source->dy != 0 || source->dx != 0) {
                taps[count++] = (remac_tap){slot, step, step};
                for (size_t r = row; r < row + rows; r++, slot += width)
                    move_row(layer, source, r / layer->rows, r % layer->rows, slot);
                continue;
            }
            for (size_t dy = 0; dy < source->block; dy++)
                taps[count++] = (remac_tap){source->data + (row * source->block + dy) * width, step, step};
        }
        run_rows(layer, taps, count, row, rows);
    }
}

/* Input row `row` of an item (0 is the one above the tensor) into its slot, whose first and last position stay zero. */
static void load_row(const remac_layer *layer, size_t item, size_t row, uint8_t *slot)
{
    const size_t channels = layer->source[0].channels, width = layer->columns * layer->stride * channels, rows = layer->rows * layer->stride;
    if (row == 0 || row > rows)
        memset(slot + channels, 0, width);
    else
        memcpy(slot + channels, layer->source[0].data + (item * rows + row - 1) * width, width);
}

/* The three input rows of a window are kept with a zero position on either side; row i lies in slot i mod 3. */
static void run_windows(const remac_layer *layer, size_t first, size_t last, uint8_t *scratch)
{
    const size_t channels = layer->source[0].channels, slot = (layer->columns * layer->stride + 2) * channels;
    size_t loaded = 0;
    memset(scratch, 0, 3 * slot);
    for (size_t row = first; row < last; row++) {
        const size_t item = row / layer->rows, top = row % layer->rows * layer->stride;
        remac_tap taps[3];
        if (row == first || top == 0)
            loaded = top;
        for (; loaded < top + 3; loaded++)
            load_row(layer, item, loaded, scratch + loaded % 3 * slot);
        for (size_t dy = 0; dy < 3; dy++)
            taps[dy] = (remac_tap){scratch + (top + dy) % 3 * slot, layer->stride * channels, 3 * channels};
        run_rows(layer, taps, 3, row, 1);
    }
}

size_t remac_layer_scratch(const remac_layer *layer)
{
    size_t bytes = 0;
    if (layer->kernel == 3)
        return 3 * (layer->columns * layer->stride + 2) * layer->source[0].channels;
    for (size_t s = 0; s < layer->sources; s++) {
        if (layer->source[s].dy != 0 || layer->source[s].dx != 0)
            bytes += rows_at_once(layer) * layer->columns * layer->source[s].channels;
    }
    return bytes;
}

void remac_layer_run(const remac_layer *layer, size_t first, size_t last, uint8_t *scratch)
{
    if (layer->kernel == 3)
        run_windows(layer, first, last, scratch);
    else
        run_points(layer, first, last, scratch);
}

void remac_analyse(const remac_dense *layers, const uint8_t *pixels, size_t height, size_t width, uint8_t *memory, int32_t *y, uint8_t *z,
                   uint32_t *texture, uint32_t *semantic)
{
    const size_t columns = (width + 63) / 64 * 64, rows = (height + 63) / 64 * 64;
    remac_analysis a;
    remac_analysis_start(&a, layers, columns, rows, memory, texture, semantic);
    for (size_t row = 0; row < rows; row++) {
        uint8_t *const to = remac_analysis_strip(&a) + row % REMAC_STRIP_ROWS * columns * 3;
        memcpy(to, pixels + (row < height ? row : height - 1) * width * 3, width * 3);
        for (size_t i = width * 3; i < columns * 3; i++)
            to[i] = to[i - 3];
        if (row % REMAC_STRIP_ROWS + 1 < REMAC_STRIP_ROWS)
            continue;
        remac_analysis_push(&a);
        while (remac_analysis_ready(&a)) {
            remac_analysis_row(&a, y, z);
            y += columns / 16 * layers[REMAC_HEAD].out;
            if (a.rows % 4 == 0)
                z += columns / 64 * layers[REMAC_HYPER_OUT].out;
        }
    }
}
