/* ---- state of the encoder, and what its working memory holds ---- */

/* The layers behind those of the analysis, in the order of FORMAT 4.2 without `reference`, whose outputs are constants of the bank. */
enum { SIDE_IN = REMAC_ANALYSIS_LAYERS, SIDE_MID, SIDE_OUT, HIDDEN_0, MEAN_0, SCALE_0 };
#define LAYERS_PER_PHASE 3u

/* What the rows that are being pushed are for. */
typedef enum {
    PASS_SURVEY,  /* descriptors, to choose references */
    PASS_STORE,   /* everything is kept and coded at the end */
    PASS_MEASURE, /* the size at one quality */
    PASS_EMIT,
    PASS_CLOSED   /* done or failed */
} flight_pass;

/* A packet that was written with image id 0. */
typedef struct {
    uint32_t crc;
    uint16_t length;
    uint16_t band;
    uint8_t fragment;
    uint8_t fragments;
    uint8_t quality;
    uint8_t coder;
} flight_record;

struct remac_flight {
    remac_flight_config config;
    remac_flight_sink sink;
    remac_analysis pipeline;
    flight_pass pass;
    uint32_t rows;              /* pixel rows pushed in this pass */
    uint32_t width, height;     /* padded */
    uint32_t bands, band_units; /* band_units: hyper-latent rows of a band */
    uint32_t semantic, texture;
    uint32_t quality;           /* of this pass */
    uint32_t low, high;         /* target bytes: what is still to be tried */
    uint32_t best, smallest;    /* highest quality that fits, or REMAC_FLIGHT_QUALITIES; size of the last that does not */
    uint32_t too_long;          /* this pass: 1 where a band is longer than its packets, so that the quality does not fit */
    remac_flight_status unfit;  /* why the last quality that does not fit does not */
    uint32_t offset, sequence;  /* of the next packet */
    uint32_t payload_crcs;      /* FORMAT 2.2, the image id */
    uint32_t companding[255];   /* FORMAT 3: I(n) + I(n + 1) */
    /* the regions of REMAC_FLIGHT_REGIONS */
    void *state;
    flight_record *records;
    uint32_t *texture_sums, *semantic_sums;
    uint8_t *analysis;
    int32_t *y_row, *y;
    uint8_t *z, *side_in, *side_mid, *side_out, *features, *zero, *plane_a, *plane_b, *plane_row, *hidden;
    int32_t *mean, *scale, *row_symbols, *y_hat, *channel;
    uint16_t *level;
    int32_t *symbols;
    uint16_t *tables;
    uint8_t *coded;
};

#define CHECK(name, holds) typedef char remac_flight_check_##name[(holds) ? 1 : -1]
CHECK(state, sizeof(struct remac_flight) <= REMAC_FLIGHT_STATE_BYTES);
CHECK(record, sizeof(flight_record) == REMAC_FLIGHT_RECORD_BYTES);
CHECK(analysis, REMAC_FLIGHT_ANALYSIS_BYTES(1600u) == REMAC_ANALYSIS_BYTES(UINT64_C(1600), REMAC_FLIGHT_STEM, REMAC_FLIGHT_BODY, REMAC_FLIGHT_REDUCE,
                                                                          REMAC_FLIGHT_DEEP, REMAC_FLIGHT_HYPER_IN));
CHECK(strip, REMAC_FLIGHT_STRIP_ROWS == REMAC_STRIP_ROWS);
CHECK(int, sizeof(int) >= 4);
