/* ---- the encoder (FORMAT 3, 5.3, 5.4) ---- */

static remac_flight_status check_config(const remac_flight_config *c)
{
    const int deep = c->depth > 8u;
    if (c->width < 1u || c->width > REMAC_FLIGHT_SIDE_MAX || c->height < 1u || c->height > REMAC_FLIGHT_SIDE_MAX)
        return REMAC_FLIGHT_BAD_SIZE;
    if (c->depth < 8u || c->depth > 16u || (deep && c->grey == 0u))
        return REMAC_FLIGHT_BAD_FORMAT;
    const int small = c->width < REMAC_FLIGHT_MOSAIC_SIDE_MIN || c->height < REMAC_FLIGHT_MOSAIC_SIDE_MIN;
    if (c->mosaic > REMAC_FLIGHT_MOSAIC_BGGR || (c->mosaic != 0u && (c->grey != 0u || deep || small)))
        return REMAC_FLIGHT_BAD_FORMAT;
    if (c->target_bytes == 0u && c->quality >= REMAC_FLIGHT_QUALITIES)
        return REMAC_FLIGHT_BAD_QUALITY;
    if (c->band_rows == 0u || c->band_rows % REMAC_FLIGHT_BAND_UNIT != 0u || c->band_rows / REMAC_FLIGHT_BAND_UNIT > 255u)
        return REMAC_FLIGHT_BAD_BAND_ROWS;
    if (c->references > REMAC_FLIGHT_REFERENCES_CHOSEN)
        return REMAC_FLIGHT_BAD_REFERENCE;
#if REMAC_FLIGHT_BANK
    if (c->references == REMAC_FLIGHT_REFERENCES_FIXED && ((c->semantic >= BANK_ENTRIES && c->semantic != REMAC_FLIGHT_NO_REFERENCE) ||
                                                           (c->texture >= BANK_ENTRIES && c->texture != REMAC_FLIGHT_NO_REFERENCE)))
        return REMAC_FLIGHT_BAD_REFERENCE;
#else
    if (c->references != REMAC_FLIGHT_REFERENCES_NONE)
        return REMAC_FLIGHT_NO_BANK;
#endif
    return REMAC_FLIGHT_OK;
}

void remac_flight_defaults(remac_flight_config *config, uint32_t width, uint32_t height)
{
    memset(config, 0, sizeof *config);
    config->width = width;
    config->height = height;
    config->depth = 8;
    config->quality = 32;
    config->band_rows = REMAC_FLIGHT_BAND_ROWS;
    config->semantic = REMAC_FLIGHT_NO_REFERENCE;
    config->texture = REMAC_FLIGHT_NO_REFERENCE;
}

uint64_t remac_flight_work_bytes(const remac_flight_config *config)
{
    if (config == NULL || check_config(config) != REMAC_FLIGHT_OK)
        return 0;
    return REMAC_FLIGHT_WORK_BYTES(config->width, config->height, config->band_rows, config->keep);
}

/* Points every region into the working memory. All sizes are multiples of 16, and so are all starts. */
static void cut_memory(remac_flight *e, uint8_t *work)
{
    const remac_flight_config *const c = &e->config;
#define REMAC_FLIGHT_CUT(name, bytes, what)                                                                                                          \
    e->name = (void *)work;                                                                                                                          \
    work += (size_t)REMAC_FLIGHT_ROUND(bytes);
    REMAC_FLIGHT_REGIONS(REMAC_FLIGHT_CUT, c->width, c->height, c->band_rows, c->keep)
    /* the margins of these rows stay 0 */
    memset(e->side_in, 0, (size_t)(e->side_mid - e->side_in));
    memset(e->side_mid, 0, (size_t)(e->side_out - e->side_mid));
    memset(e->zero, 0, (size_t)(e->plane_a - e->zero));
}

/* Begins a pass over the picture. */
static void start_pass(remac_flight *e, flight_pass pass, uint32_t quality)
{
    const int survey = e->config.references == REMAC_FLIGHT_REFERENCES_CHOSEN && (pass == PASS_SURVEY || pass == PASS_STORE);
    remac_analysis_start(&e->pipeline, LAYERS, e->width, e->height, e->analysis, survey ? e->texture_sums : NULL, survey ? e->semantic_sums : NULL);
    e->pass = pass;
    e->quality = quality;
    e->rows = 0;
    e->offset = 0;
    e->sequence = 0;
    e->payload_crcs = 0;
    e->too_long = 0;
}

/* The next pass when the references are known: to measure as long as there are qualities to try, else to emit. */
static void start_coding(remac_flight *e)
{
    if (e->config.target_bytes == 0u)
        start_pass(e, PASS_EMIT, e->config.quality);
    else if (e->low < e->high)
        start_pass(e, PASS_MEASURE, (e->low + e->high - 1u) / 2u);
    else
        start_pass(e, PASS_EMIT, e->best);
}

remac_flight_status remac_flight_begin(remac_flight **encoder, void *work, size_t work_bytes, const remac_flight_config *config,
                                       const remac_flight_sink *sink)
{
    if (encoder == NULL || work == NULL || config == NULL || sink == NULL || sink->write == NULL)
        return REMAC_FLIGHT_NULL_POINTER;
    *encoder = NULL;
    const remac_flight_status status = check_config(config);
    if (status != REMAC_FLIGHT_OK)
        return status;
    if ((uintptr_t)work % REMAC_FLIGHT_ALIGNMENT != 0u)
        return REMAC_FLIGHT_WORK_UNALIGNED;
    if (work_bytes < remac_flight_work_bytes(config))
        return REMAC_FLIGHT_WORK_TOO_SMALL;
    remac_flight *const e = work;
    const int fixed = config->references == REMAC_FLIGHT_REFERENCES_FIXED;
    memset(e, 0, sizeof *e);
    e->config = *config;
    e->sink = *sink;
    e->width = (uint32_t)REMAC_FLIGHT_PADDED(config->width);
    e->height = (uint32_t)REMAC_FLIGHT_PADDED(config->height);
    e->band_units = config->band_rows / REMAC_FLIGHT_BAND_UNIT;
    e->bands = (e->height + config->band_rows - 1u) / config->band_rows;
    e->semantic = fixed ? config->semantic : REMAC_FLIGHT_NO_REFERENCE;
    e->texture = fixed ? config->texture : REMAC_FLIGHT_NO_REFERENCE;
    e->high = REMAC_FLIGHT_QUALITIES;
    e->best = REMAC_FLIGHT_QUALITIES;
    cut_memory(e, work);
    if (config->depth > 8u)
        fill_companding(e);
    if (config->keep != 0u)
        start_pass(e, PASS_STORE, config->quality);
    else if (config->references == REMAC_FLIGHT_REFERENCES_CHOSEN)
        start_pass(e, PASS_SURVEY, config->quality);
    else
        start_coding(e);
    *encoder = e;
    return REMAC_FLIGHT_OK;
}

/* Row `row` of y lies in the analysis' order in e->y_row: sorts it into the phases of its band. */
static void store_row(remac_flight *e, const flight_band *band, size_t row)
{
    static const uint8_t phase_of[2][2] = {{0, 2}, {3, 1}}; /* FORMAT 1: [row mod 2][column mod 2] */
    const size_t columns = 2u * band->columns, plane = 2u * band->rows * columns;
    int32_t *const y = e->y + (band->y - e->y);
    for (size_t q = 0; q < 2u * columns; q++) {
        const size_t position = phase_of[row % 2u][q % 2u] * plane + row / 2u * columns + q / 2u;
        memcpy(y + position * REMAC_FLIGHT_LATENTS, e->y_row + q * REMAC_FLIGHT_LATENTS, REMAC_FLIGHT_LATENTS * sizeof *y);
    }
}

/* Takes the next row of latents from the analysis, and codes its band if that is now complete. */
static remac_flight_status take_row(remac_flight *e)
{
    const uint32_t row = (uint32_t)e->pipeline.rows, band_rows = 4u * e->band_units, number = row / band_rows, local = row % band_rows;
    if (e->pass == PASS_SURVEY) {
        remac_analysis_row(&e->pipeline, NULL, NULL);
        return REMAC_FLIGHT_OK;
    }
    const flight_band band = find_band(e, number);
    uint8_t *const z = e->z + (band.z - e->z) + local / 4u * band.columns * REMAC_FLIGHT_HYPER;
    remac_analysis_row(&e->pipeline, e->y_row, z);
    store_row(e, &band, local);
    if (e->pass == PASS_STORE || local + 1u < 4u * band.rows)
        return REMAC_FLIGHT_OK;
    return code_band(e, number);
}

/* The strip that was written to remac_analysis_strip goes in, the rows that this completes come out. */
static remac_flight_status push_strip(remac_flight *e)
{
    remac_flight_status status = REMAC_FLIGHT_OK;
    remac_analysis_push(&e->pipeline);
    while (status == REMAC_FLIGHT_OK && remac_analysis_ready(&e->pipeline) != 0)
        status = take_row(e);
    return status;
}

/* The rows below the picture repeat its last one (FORMAT 3), which a strip that was pushed holds in its last row. */
static remac_flight_status push_padding(remac_flight *e)
{
    const size_t row_bytes = (size_t)3u * e->width;
    remac_flight_status status = REMAC_FLIGHT_OK;
    while (status == REMAC_FLIGHT_OK && e->pipeline.strips < e->height / REMAC_FLIGHT_STRIP_ROWS) {
        const uint8_t *const last = remac_analysis_previous(&e->pipeline) + (REMAC_FLIGHT_STRIP_ROWS - 1u) * row_bytes;
        uint8_t *const strip = remac_analysis_strip(&e->pipeline);
        for (uint32_t row = 0; row < REMAC_FLIGHT_STRIP_ROWS; row++)
            memcpy(strip + row * row_bytes, last, row_bytes);
        status = push_strip(e);
    }
    return status;
}

static remac_flight_status push_rows(remac_flight *e, const uint8_t *samples, size_t row_bytes, uint32_t rows)
{
    const size_t strip_row = (size_t)3u * e->width;
    remac_flight_status status = REMAC_FLIGHT_OK;
    for (uint32_t top = 0; top < rows && status == REMAC_FLIGHT_OK; top += REMAC_FLIGHT_STRIP_ROWS) {
        uint8_t *const strip = remac_analysis_strip(&e->pipeline);
        for (uint32_t row = 0; row < REMAC_FLIGHT_STRIP_ROWS && status == REMAC_FLIGHT_OK; row++) {
            const uint32_t from = top + row < rows ? top + row : rows - 1u; /* below the picture its last row is repeated */
            status = convert_row(e, samples + from * row_bytes, strip + row * strip_row);
        }
        if (status == REMAC_FLIGHT_OK)
            status = push_strip(e);
    }
    e->rows += rows;
    if (status == REMAC_FLIGHT_OK && e->rows == e->config.height)
        status = push_padding(e);
    return status;
}

remac_flight_status remac_flight_push(remac_flight *e, const void *samples, size_t row_bytes, uint32_t rows)
{
    if (e == NULL || samples == NULL)
        return REMAC_FLIGHT_NULL_POINTER;
    if (e->pass == PASS_CLOSED)
        return REMAC_FLIGHT_BAD_STATE;
    const remac_flight_config *const c = &e->config;
    const size_t needed = (size_t)c->width * (c->grey != 0u ? 1u : 3u) * (c->depth > 8u ? 2u : 1u);
    remac_flight_status status = REMAC_FLIGHT_OK;
    if (rows == 0u || rows > c->height - e->rows || (rows % REMAC_FLIGHT_STRIP_ROWS != 0u && rows != c->height - e->rows))
        status = REMAC_FLIGHT_BAD_ROWS;
    else if (row_bytes < needed)
        status = REMAC_FLIGHT_BAD_ROW_BYTES;
    else
        status = push_rows(e, samples, row_bytes, rows);
    if (status != REMAC_FLIGHT_OK)
        e->pass = PASS_CLOSED;
    return status;
}

/* One step of the bisection for the highest quality within the target, as the runtime's encoder does it; the size is that of the pass. Where nothing
 * fits, quality 0 is tried last. */
static void narrow(remac_flight *e)
{
    if (e->too_long == 0u && e->offset <= e->config.target_bytes) {
        e->best = e->quality;
        e->low = e->quality + 1u;
    } else {
        e->smallest = e->offset;
        e->unfit = e->too_long != 0u ? REMAC_FLIGHT_BAND_TOO_LONG : REMAC_FLIGHT_TARGET_TOO_SMALL;
        e->high = e->quality;
    }
}

/* All bands from what a PASS_STORE kept, in as many passes as it takes. */
static remac_flight_status code_kept(remac_flight *e)
{
    remac_flight_status status = REMAC_FLIGHT_OK;
    for (uint32_t turn = 0; turn <= REMAC_FLIGHT_QUALITIES && status == REMAC_FLIGHT_OK; turn++) {
        start_coding(e);
        if (e->quality == REMAC_FLIGHT_QUALITIES)
            return e->unfit;
        for (uint32_t band = 0; band < e->bands && status == REMAC_FLIGHT_OK; band++)
            status = code_band(e, band);
        if (e->pass == PASS_EMIT)
            return status;
        narrow(e);
    }
    return status;
}

/* The end of a pass: what comes next. */
static remac_flight_status end_pass(remac_flight *e)
{
    if (e->rows != e->config.height)
        return REMAC_FLIGHT_INCOMPLETE;
    if (e->pass == PASS_EMIT)
        return REMAC_FLIGHT_OK;
#if REMAC_FLIGHT_BANK
    if (e->config.references == REMAC_FLIGHT_REFERENCES_CHOSEN && e->pass != PASS_MEASURE)
        choose_references(e);
#endif
    if (e->pass == PASS_STORE)
        return code_kept(e);
    if (e->pass == PASS_MEASURE)
        narrow(e);
    start_coding(e);
    return e->quality == REMAC_FLIGHT_QUALITIES ? e->unfit : REMAC_FLIGHT_AGAIN;
}

remac_flight_status remac_flight_end(remac_flight *e, remac_flight_result *result)
{
    if (e == NULL)
        return REMAC_FLIGHT_NULL_POINTER;
    if (e->pass == PASS_CLOSED)
        return REMAC_FLIGHT_BAD_STATE;
    remac_flight_status status = end_pass(e);
    if (status == REMAC_FLIGHT_AGAIN)
        return status;
    e->pass = PASS_CLOSED;
    if (result != NULL)
        memset(result, 0, sizeof *result);
    if (status == REMAC_FLIGHT_TARGET_TOO_SMALL && result != NULL)
        result->bytes = e->smallest;
    if (status == REMAC_FLIGHT_OK)
        status = finish_stream(e, result);
    return status;
}
