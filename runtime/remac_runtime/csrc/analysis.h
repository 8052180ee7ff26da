/* SPDX-License-Identifier: MIT */
/*
 * g_a and h_a of remac (runtime/FORMAT.md section 5.3) as a push pipeline: 16 rows of padded pixels go in, a row of y comes out two strips later, a
 * row of z after every fourth. Rings of a few rows hold what the 3x3 windows still need, so memory depends on the width alone. No heap, no recursion,
 * every loop bounded by an argument; all memory is the caller's.
 *
 *     remac_analysis_start(&a, layers, width, height, memory, NULL, NULL);
 *     for every strip of 16 rows:
 *         write it to remac_analysis_strip(&a), [16][width][3]
 *         remac_analysis_push(&a);
 *         while (remac_analysis_ready(&a))
 *             remac_analysis_row(&a, y, z);
 */
#ifndef REMAC_ANALYSIS_H
#define REMAC_ANALYSIS_H

#include "kernels.h"

#define REMAC_STRIP_ROWS 16 /* pixels a row of y */

/* The layers of the analysis in the order of FORMAT 4.2. */
enum { REMAC_STEM, REMAC_BODY, REMAC_REDUCE, REMAC_DEEP, REMAC_HEAD, REMAC_HYPER_IN, REMAC_HYPER_OUT, REMAC_ANALYSIS_LAYERS };

/* Bytes of working memory for padded pictures of `width` pixels; stem .. hyper_in are the output channels of these layers. */
#define REMAC_ANALYSIS_BYTES(width, stem, body, reduce, deep, hyper_in)                                                                              \
    (3 * REMAC_STRIP_ROWS * 3 * (width) + REMAC_ANALYSIS_ROW(width, 8, stem) * 4 + REMAC_ANALYSIS_ROW(width, 8, body) * 4 +                          \
     REMAC_ANALYSIS_ROW(width, 16, reduce) * 4 + (width) / 16 * (deep) * 2 + (width) / 32 * (hyper_in) * 2 +                                         \
     REMAC_ANALYSIS_MAX(REMAC_ANALYSIS_ROW(width, 16, reduce),                                                                                       \
                        REMAC_ANALYSIS_MAX(REMAC_ANALYSIS_ROW(width, 8, stem), REMAC_ANALYSIS_ROW(width, 8, body))))
#define REMAC_ANALYSIS_ROW(width, stride, channels) (((width) / (stride) + 2) * (channels)) /* a zero position on either side */
#define REMAC_ANALYSIS_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Invariant: rows <= strips <= height / 16. The rings hold the strips, and the rows of each layer, with the highest numbers so far. */
typedef struct {
    const remac_dense *layers; /* [REMAC_ANALYSIS_LAYERS] */
    size_t width, height;      /* of the padded picture: multiples of 64 */
    uint8_t *pixels, *stem, *body, *reduce, *deep, *hyper_in; /* rings */
    const uint8_t *zero;                                      /* stands for the rows outside the picture */
    uint32_t *texture, *semantic;
    size_t strips; /* pushed */
    size_t rows;   /* of y given out */
} remac_analysis;

/* Bytes of `memory` for layers and width: REMAC_ANALYSIS_BYTES of their channels. */
size_t remac_analysis_bytes(const remac_dense *layers, size_t width);

/* Begins a picture. `texture` and `semantic`, [channels of body and of deep], get the sums of the descriptors; both may be NULL. They stay below 2^32
 * for sides up to 16384. */
void remac_analysis_start(remac_analysis *a, const remac_dense *layers, size_t width, size_t height, uint8_t *memory, uint32_t *texture,
                          uint32_t *semantic);
/* Where the next strip belongs, and the one before it (NULL in front of the second): uint8[16][width][3]. */
uint8_t *remac_analysis_strip(remac_analysis *a);
const uint8_t *remac_analysis_previous(const remac_analysis *a);
/* Takes the strip in. At most height / 16 times, and only after all rows that were ready have been fetched. */
void remac_analysis_push(remac_analysis *a);
/* 1 where a row is ready, else 0. */
int remac_analysis_ready(const remac_analysis *a);
/* Row a->rows of y, int32[width / 16][channels of head], and where (a->rows & 3) == 3 row a->rows >> 2 of z, uint8[width / 64][channels of
 * hyper_out]. Either may be NULL if it is not wanted in the whole picture. Counts a->rows up. */
void remac_analysis_row(remac_analysis *a, int32_t *y, uint8_t *z);

#endif
