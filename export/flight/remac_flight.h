/* SPDX-License-Identifier: MIT */
/*
 * The flight encoder of remac in C99. Pictures go in from the top in strips of 16 rows, packets come out through a function of the caller. Integers
 * only, no heap, no recursion, nothing from the C library but memcpy and memset, the same bytes on every processor. How to call it is in README.md,
 * the stream in FORMAT.md, whose sections the comments cite.
 *
 *     static uint64_t work[REMAC_FLIGHT_WORK_BYTES(1600, 1200, 128, 0) / 8];
 *     remac_flight_defaults(&config, 1600, 1200);
 *     status = remac_flight_begin(&encoder, work, sizeof work, &config, &sink);
 *     do {
 *         for each strip, while status is REMAC_FLIGHT_OK: status = remac_flight_push(encoder, samples, row_bytes, 16);
 *         if (status == REMAC_FLIGHT_OK) status = remac_flight_end(encoder, &result);
 *     } while (status == REMAC_FLIGHT_AGAIN);
 */
#ifndef REMAC_FLIGHT_H
#define REMAC_FLIGHT_H

#include <stddef.h>
#include <stdint.h>

/*@NETWORK@*/

#define REMAC_FLIGHT_STRIP_ROWS 16u
#define REMAC_FLIGHT_ALIGNMENT 8u        /* of the working memory */
#define REMAC_FLIGHT_SIDE_MAX 16384u
#define REMAC_FLIGHT_QUALITIES 64u
#define REMAC_FLIGHT_BAND_UNIT 64u
#define REMAC_FLIGHT_BAND_ROWS 512u     /* of a band, unless the configuration says otherwise */
#define REMAC_FLIGHT_NO_REFERENCE 255u
#define REMAC_FLIGHT_MOSAIC_SIDE_MIN 4u  /* of a picture with a mosaic */
#define REMAC_FLIGHT_HEADER_BYTES 40u    /* of every packet */
#define REMAC_FLIGHT_DETAILS_BYTES 18u   /* between header and band in the packet that a stream begins with */
#define REMAC_FLIGHT_PAYLOAD_MAX 65495u  /* bytes of a packet behind its header */
#define REMAC_FLIGHT_FRAGMENTS_MAX 255u

typedef enum {
    REMAC_FLIGHT_OK = 0,
    REMAC_FLIGHT_AGAIN = 1,             /* no error: push the same picture once more, then call remac_flight_end again */
    REMAC_FLIGHT_NULL_POINTER = 2,
    REMAC_FLIGHT_BAD_SIZE = 3,          /* width or height is not in 1..REMAC_FLIGHT_SIDE_MAX */
    REMAC_FLIGHT_BAD_FORMAT = 4,        /* neither 8 bits nor grey of 9..16 bits; a mosaic that is unknown, grey, or too small */
    REMAC_FLIGHT_BAD_QUALITY = 5,
    REMAC_FLIGHT_BAD_BAND_ROWS = 6,     /* not a multiple of 64 in 64..16320 */
    REMAC_FLIGHT_BAD_REFERENCE = 7,     /* an unknown choice, or an entry that the bank does not have */
    REMAC_FLIGHT_NO_BANK = 8,           /* references are wanted, but the bank is not compiled in */
    REMAC_FLIGHT_WORK_UNALIGNED = 9,
    REMAC_FLIGHT_WORK_TOO_SMALL = 10,   /* below remac_flight_work_bytes */
    REMAC_FLIGHT_BAD_ROWS = 11,         /* not a multiple of 16 and not the end of the picture, or beyond it */
    REMAC_FLIGHT_BAD_ROW_BYTES = 12,    /* rows overlap */
    REMAC_FLIGHT_BAD_SAMPLE = 13,       /* a sample does not fit the bit depth */
    REMAC_FLIGHT_INCOMPLETE = 14,       /* remac_flight_end before the last row */
    REMAC_FLIGHT_BAD_STATE = 15,        /* a call after the end, or after an error */
    REMAC_FLIGHT_BAND_TOO_LONG = 16,    /* a band does not fit its 255 packets: fewer rows a band, or a lower quality */
    REMAC_FLIGHT_TARGET_TOO_SMALL = 17, /* result->bytes is the smallest possible size */
    REMAC_FLIGHT_OUTPUT_REFUSED = 18,   /* the sink returned something else than 0 */
    REMAC_FLIGHT_INTERNAL = 19          /* a check inside failed: memory or constants are damaged */
} remac_flight_status;

/* FORMAT 5.4. */
typedef enum {
    REMAC_FLIGHT_REFERENCES_NONE = 0,
    REMAC_FLIGHT_REFERENCES_FIXED = 1, /* `semantic` and `texture` of the configuration */
    REMAC_FLIGHT_REFERENCES_CHOSEN = 2 /* the nearest ones, known only after all rows: another push of the picture unless `keep` */
} remac_flight_references;

/* FORMAT 3.1: the colours of the first two rows and columns of a camera's mosaic. */
typedef enum {
    REMAC_FLIGHT_MOSAIC_NONE = 0,
    REMAC_FLIGHT_MOSAIC_RGGB = 1,
    REMAC_FLIGHT_MOSAIC_GRBG = 2,
    REMAC_FLIGHT_MOSAIC_GBRG = 3,
    REMAC_FLIGHT_MOSAIC_BGGR = 4
} remac_flight_mosaic;

typedef struct {
    uint32_t width, height; /* pixels */
    uint32_t grey;          /* 0: samples R, G, B in turn; 1: one sample a pixel */
    uint32_t depth;         /* 8: samples are uint8_t; 9..16, grey only: uint16_t of the processor's byte order, companded (FORMAT 3) */
    uint32_t quality;       /* 0..63; not looked at with target_bytes */
    uint32_t target_bytes;  /* 0: none; else the stream has at most so many, of the highest quality that a bisection finds (in a few hundred bytes a
                             * higher one may fit, too): more pushes of the picture unless `keep` */
    uint32_t band_rows;     /* rows that one lost packet costs: a multiple of 64 */
    uint32_t references;    /* a remac_flight_references */
    uint32_t semantic, texture; /* entries of the bank, or REMAC_FLIGHT_NO_REFERENCE */
    uint32_t has_image_id;  /* 0: FORMAT 2.2's, known only at the end: the headers of all packets are then written a second time */
    uint32_t image_id;
    uint32_t keep;          /* 1: the latents of the whole picture are kept, so that one push always suffices */
    uint32_t mosaic;        /* a remac_flight_mosaic; its rows come from remac_flight_mosaic_row. 8-bit colour, sides of 4 or more */
} remac_flight_config;

/* Takes `size` bytes of the stream that belong at `offset`; returns 0, or anything else to stop. Packets come in order and gapless; then, unless
 * has_image_id, the first 40 bytes of every packet once more. */
typedef struct {
    int32_t (*write)(void *context, uint32_t offset, const uint8_t *data, uint32_t size);
    void *context;
} remac_flight_sink;

/* A sink's context for remac_flight_to_buffer, which refuses what lies beyond `room`. */
typedef struct {
    uint8_t *data;
    uint32_t room;
} remac_flight_buffer;

typedef struct {
    uint32_t bytes; /* of the stream */
    uint32_t packets;
    uint32_t bands;
    uint32_t quality;
    uint32_t semantic, texture;
    uint32_t image_id;
} remac_flight_result;

typedef struct remac_flight remac_flight;

/* Quality 32, RGB of 8 bits without a mosaic, bands of REMAC_FLIGHT_BAND_ROWS, no references, no target, image id of FORMAT 2.2, nothing kept. */
void remac_flight_defaults(remac_flight_config *config, uint32_t width, uint32_t height);

/* Bytes of working memory that a configuration needs: REMAC_FLIGHT_WORK_BYTES of it; 0 for sizes that are not allowed. */
uint64_t remac_flight_work_bytes(const remac_flight_config *config);

/* Checks everything and starts. The encoder lives in `work`, which is the caller's again after remac_flight_end or an error. */
remac_flight_status remac_flight_begin(remac_flight **encoder, void *work, size_t work_bytes, const remac_flight_config *config,
                                       const remac_flight_sink *sink);

/* The next `rows` rows from the top, `row_bytes` apart: a multiple of 16, or the rest of the picture. Bands that become complete are coded. */
remac_flight_status remac_flight_push(remac_flight *encoder, const void *samples, size_t row_bytes, uint32_t rows);

/* After the last row. REMAC_FLIGHT_OK: the stream is complete. `result` may be NULL; it is filled for OK and for TARGET_TOO_SMALL. */
remac_flight_status remac_flight_end(remac_flight *encoder, remac_flight_result *result);

/* One row to push of a picture with a mosaic (FORMAT 3.1): R, G, B of `width` pixels from five rows of its samples, one a pixel. rows[2] is row
 * number `row`, around it are the two above and the two below; beyond the picture they are mirrored (row -1 is row 1, row H is row H - 2). BAD_FORMAT
 * for MOSAIC_NONE, too, and for a width below 4; nothing is written unless REMAC_FLIGHT_OK. */
remac_flight_status remac_flight_mosaic_row(uint32_t mosaic, uint32_t width, uint32_t row, const uint8_t *const rows[5], uint8_t *pixels);

/* A ready-made `write`: context is a remac_flight_buffer. */
int32_t remac_flight_to_buffer(void *context, uint32_t offset, const uint8_t *data, uint32_t size);

/* ---- working memory: one list, from which the size, the pointers and the printed map follow ---- */

#define REMAC_FLIGHT_STATE_BYTES 2560u
#define REMAC_FLIGHT_RECORD_BYTES 12u
#define REMAC_FLIGHT_LANES 64u

#define REMAC_FLIGHT_MAX(a, b) ((a) > (b) ? (a) : (b))
#define REMAC_FLIGHT_ROUND(n) (((uint64_t)(n) + 15u) / 16u * 16u)
#define REMAC_FLIGHT_PADDED(n) (((uint64_t)(n) + 63u) / 64u * 64u)
#define REMAC_FLIGHT_BAND(h, b) (REMAC_FLIGHT_PADDED(h) < (uint64_t)(b) ? REMAC_FLIGHT_PADDED(h) : (uint64_t)(b))
#define REMAC_FLIGHT_SLOT(h, b, keep) ((keep) != 0u ? REMAC_FLIGHT_PADDED(h) : REMAC_FLIGHT_BAND(h, b))
#define REMAC_FLIGHT_COLUMNS(w) (REMAC_FLIGHT_PADDED(w) / 32u) /* of a plane */
#define REMAC_FLIGHT_PLANE_ROW(w) (REMAC_FLIGHT_COLUMNS(w) * REMAC_FLIGHT_LATENTS)
#define REMAC_FLIGHT_SYMBOLS(w, rows) (REMAC_FLIGHT_PADDED(w) / 64u * ((rows) / 64u) * (REMAC_FLIGHT_HYPER + 16u * REMAC_FLIGHT_LATENTS))
#define REMAC_FLIGHT_CODED(w, rows) (4u * REMAC_FLIGHT_LANES + 8u * REMAC_FLIGHT_SYMBOLS(w, rows)) /* a symbol takes at most 8 bytes */
#define REMAC_FLIGHT_PACKETS(w, h, b)                                                                                                                \
    ((REMAC_FLIGHT_PADDED(h) + (b) - 1u) / (b) *                                                                                                     \
     ((REMAC_FLIGHT_CODED(w, REMAC_FLIGHT_BAND(h, b)) + REMAC_FLIGHT_DETAILS_BYTES) / REMAC_FLIGHT_PAYLOAD_MAX + 1u))
#define REMAC_FLIGHT_ROW(w, stride, channels) ((REMAC_FLIGHT_PADDED(w) / (stride) + 2u) * (channels))
#define REMAC_FLIGHT_ANALYSIS_BYTES(w)                                                                                                               \
    (144u * REMAC_FLIGHT_PADDED(w) + 4u * REMAC_FLIGHT_ROW(w, 8u, REMAC_FLIGHT_STEM + REMAC_FLIGHT_BODY) +                                           \
     4u * REMAC_FLIGHT_ROW(w, 16u, REMAC_FLIGHT_REDUCE) + REMAC_FLIGHT_PADDED(w) / 8u * REMAC_FLIGHT_DEEP +                                          \
     REMAC_FLIGHT_PADDED(w) / 16u * REMAC_FLIGHT_HYPER_IN +                                                                                          \
     REMAC_FLIGHT_MAX(REMAC_FLIGHT_ROW(w, 16u, REMAC_FLIGHT_REDUCE), REMAC_FLIGHT_ROW(w, 8u, REMAC_FLIGHT_MAX(REMAC_FLIGHT_STEM, REMAC_FLIGHT_BODY))))
#define REMAC_FLIGHT_ZEROS REMAC_FLIGHT_MAX(REMAC_FLIGHT_REFERENCE, REMAC_FLIGHT_MAX(REMAC_FLIGHT_SIDE_IN, REMAC_FLIGHT_SIDE_MID))

/* X(name, bytes, what it is) for width w, height h, band rows b and keep k. */
#define REMAC_FLIGHT_REGIONS(X, w, h, b, k)                                                                                                          \
    X(state, REMAC_FLIGHT_STATE_BYTES, "state of the encoder")                                                                                       \
    X(records, REMAC_FLIGHT_RECORD_BYTES *REMAC_FLIGHT_PACKETS(w, h, b), "packets written, to give them their image id at the end")                  \
    X(texture_sums, 4u * REMAC_FLIGHT_BODY, "descriptor sums")                                                                                       \
    X(semantic_sums, 4u * REMAC_FLIGHT_DEEP, "descriptor sums")                                                                                      \
    X(analysis, REMAC_FLIGHT_ANALYSIS_BYTES(w), "rings of pixels and features of g_a, h_a")                                                          \
    X(y_row, 8u * REMAC_FLIGHT_PLANE_ROW(w), "a row of y")                                                                                           \
    X(y, REMAC_FLIGHT_SLOT(h, b, k) / 2u * REMAC_FLIGHT_PLANE_ROW(w), "y of a band, or of the picture with keep")                               \
    X(z, REMAC_FLIGHT_SLOT(h, b, k) / 64u * (REMAC_FLIGHT_PADDED(w) / 64u) * REMAC_FLIGHT_HYPER, "z of a band, or of the picture with keep")         \
    X(side_in, REMAC_FLIGHT_BAND(h, b) / 64u * REMAC_FLIGHT_ROW(w, 64u, REMAC_FLIGHT_SIDE_IN), "h_s, first layer")                                   \
    X(side_mid, REMAC_FLIGHT_BAND(h, b) / 64u * REMAC_FLIGHT_ROW(w, 32u, REMAC_FLIGHT_SIDE_MID), "h_s, second layer, repeated")                      \
    X(side_out, REMAC_FLIGHT_BAND(h, b) / 32u * REMAC_FLIGHT_COLUMNS(w) * REMAC_FLIGHT_SIDE_OUT, "side information")                                 \
    X(features, REMAC_FLIGHT_BAND(h, b) / 32u * REMAC_FLIGHT_COLUMNS(w) * REMAC_FLIGHT_REFERENCE, "reference features")                              \
    X(zero, REMAC_FLIGHT_ROW(w, 32u, REMAC_FLIGHT_ZEROS), "zeros")                                                                                   \
    X(plane_a, (REMAC_FLIGHT_BAND(h, b) / 32u + 2u) * REMAC_FLIGHT_ROW(w, 32u, REMAC_FLIGHT_LATENTS), "plane of phase 0 with its margin")            \
    X(plane_b, (REMAC_FLIGHT_BAND(h, b) / 32u + 2u) * REMAC_FLIGHT_ROW(w, 32u, REMAC_FLIGHT_LATENTS), "plane of phase 1 with its margin")            \
    X(plane_row, REMAC_FLIGHT_PLANE_ROW(w), "a row of the planes of phases 2 and 3")                                                                 \
    X(hidden, REMAC_FLIGHT_COLUMNS(w) * REMAC_FLIGHT_HIDDEN, "a row of hidden features")                                                             \
    X(mean, 4u * REMAC_FLIGHT_PLANE_ROW(w), "a row of mu")                                                                                           \
    X(scale, 4u * REMAC_FLIGHT_PLANE_ROW(w), "a row of log scales")                                                                                  \
    X(row_symbols, 4u * REMAC_FLIGHT_PLANE_ROW(w), "a row of symbols")                                                                               \
    X(y_hat, 4u * REMAC_FLIGHT_PLANE_ROW(w), "a row of decoded latents")                                                                             \
    X(channel, 4u * REMAC_FLIGHT_LATENTS, "what symbols have taught their channels")                                                                 \
    X(level, 2u * REMAC_FLIGHT_PLANE_ROW(w), "a row of levels of the scale")                                                                         \
    X(symbols, 4u * REMAC_FLIGHT_SYMBOLS(w, REMAC_FLIGHT_BAND(h, b)), "symbols of a band")                                                           \
    X(tables, 2u * REMAC_FLIGHT_SYMBOLS(w, REMAC_FLIGHT_BAND(h, b)), "their tables")                                                                 \
    X(coded, REMAC_FLIGHT_CODED(w, REMAC_FLIGHT_BAND(h, b)), "the coded band")
#define REMAC_FLIGHT_ADD(name, bytes, what) +REMAC_FLIGHT_ROUND(bytes)

/* A constant expression where its arguments are: width, height and rows a band in pixels; keep 0 or 1. */
#define REMAC_FLIGHT_WORK_BYTES(width, height, band_rows, keep) (UINT64_C(0) REMAC_FLIGHT_REGIONS(REMAC_FLIGHT_ADD, width, height, band_rows, keep))

#endif
