/* SPDX-License-Identifier: MIT */
/* Whole layers over tensors [items][rows][columns][channels], and the whole analysis, for the runtime's c99 backend. No heap. */
#ifndef REMAC_LAYERS_H
#define REMAC_LAYERS_H

#include "analysis.h"

#define REMAC_SOURCES_MAX 5 /* a phase: side information and four neighbours */
#define REMAC_TAPS_MAX 32

/* What a layer looks at; sources are joined along the channels, in order. */
typedef struct {
    const uint8_t *data; /* [items][rows * block][columns * block][channels], rows and columns being those of the layer's input */
    size_t channels;
    size_t block; /* space-to-depth of it (FORMAT 5.2); 1 is none */
    int dy;       /* the value of (row + dy, column + dx), REMAC_OUTSIDE beyond the tensor (FORMAT 5.4); in -1..1, only with block 1 */
    int dx;
} remac_source;

#define REMAC_OUTSIDE 128
#define REMAC_RUN_POSITIONS 128 /* short rows of a pointwise layer run together, up to so many positions */

/* kernel 1 with stride 1 and any sources; kernel 3 (zeros beyond the tensor) with stride 1 or 2 and one source with block 1, dy = dx = 0. */
typedef struct {
    remac_dense dense;
    remac_source source[REMAC_SOURCES_MAX];
    size_t sources;
    size_t kernel;
    size_t stride;
    size_t items;
    size_t rows; /* of the output */
    size_t columns;
    void *out; /* [items][rows][columns][dense.out], uint8_t, or int32_t of a head */
    int head;
} remac_layer;

/* Bytes that a run needs besides. */
size_t remac_layer_scratch(const remac_layer *layer);

/* Rows first .. last - 1 of items * rows rows. Runs of disjoint rows with a scratch of their own may be simultaneous. */
void remac_layer_run(const remac_layer *layer, size_t first, size_t last, uint8_t *scratch);

/* FORMAT 5.3 of pixels[height][width][3], padded here (FORMAT 3), in one go: y int32[H / 16][W / 16][channels of head],
 * z[H / 64][W / 64][channels of hyper_out] and the sums of the descriptors; H and W are the padded sides, at most 16384. `memory` has
 * remac_analysis_bytes(layers, W). */
void remac_analyse(const remac_dense *layers, const uint8_t *pixels, size_t height, size_t width, uint8_t *memory, int32_t *y, uint8_t *z,
                   uint32_t *texture, uint32_t *semantic);

#endif
