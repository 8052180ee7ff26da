/* ---- samples to pixels (FORMAT 3), descriptors to references (FORMAT 5.4) ---- */

/* I(n) + I(n + 1): code n + 1 is nearer than n where twice a sample is above it. */
static void fill_companding(remac_flight *e)
{
    const uint32_t top = (UINT32_C(1) << e->config.depth) - 1u;
    uint32_t below = 0; /* I(0) = (0 + 32512) div 65025 */
    for (uint32_t n = 0; n < 255u; n++) {
        const uint32_t above = (uint32_t)(((uint64_t)(n + 1u) * (n + 1u) * top + 32512u) / 65025u);
        e->companding[n] = below + above;
        below = above;
    }
}

/* The number of values of e->companding below twice the sample; they never fall. */
static uint8_t compand(const remac_flight *e, uint32_t sample)
{
    uint32_t code = 0;
    for (uint32_t step = 128; step > 0u; step /= 2u) {
        if (e->companding[code + step - 1u] < 2u * sample)
            code += step;
    }
    return (uint8_t)code;
}

/* One row of samples to uint8[padded width][3]; the last pixel is repeated. */
static remac_flight_status convert_row(const remac_flight *e, const uint8_t *samples, uint8_t *pixels)
{
    const remac_flight_config *const c = &e->config;
    const size_t width = c->width;
    if (c->grey == 0u) {
        memcpy(pixels, samples, 3u * width);
    } else {
        for (size_t q = 0; q < width; q++) {
            uint16_t sample = samples[q];
            if (c->depth > 8u) {
                memcpy(&sample, samples + 2u * q, 2);
                if ((uint32_t)sample >> c->depth != 0u)
                    return REMAC_FLIGHT_BAD_SAMPLE;
                sample = compand(e, sample);
            }
            memset(pixels + 3u * q, sample, 3);
        }
    }
    for (size_t q = width; q < e->width; q++)
        memcpy(pixels + 3u * q, pixels + 3u * (width - 1u), 3);
    return REMAC_FLIGHT_OK;
}

static uint8_t of_64ths(int32_t sum)
{
    const int32_t rounded = sum < 0 ? 0 : (sum + 32) / 64; /* what is below -32 would be negative, what is between rounds to 0 */
    return (uint8_t)(rounded > 255 ? 255 : rounded);
}

remac_flight_status remac_flight_mosaic_row(uint32_t mosaic, uint32_t width, uint32_t row, const uint8_t *const rows[5], uint8_t *pixels)
{
    if (rows == NULL || pixels == NULL || rows[0] == NULL || rows[1] == NULL || rows[2] == NULL || rows[3] == NULL || rows[4] == NULL)
        return REMAC_FLIGHT_NULL_POINTER;
    if (width < 1u || width > REMAC_FLIGHT_SIDE_MAX)
        return REMAC_FLIGHT_BAD_SIZE;
    if (mosaic < REMAC_FLIGHT_MOSAIC_RGGB || mosaic > REMAC_FLIGHT_MOSAIC_BGGR || width < REMAC_FLIGHT_MOSAIC_SIDE_MIN)
        return REMAC_FLIGHT_BAD_FORMAT;
    const int in_red_row = row % 2u == (mosaic - 1u) / 2u;
    for (uint32_t q = 0; q < width; q++) {
        const uint32_t left = q > 0u ? q - 1u : 1u, right = q + 1u < width ? q + 1u : width - 2u;
        const uint32_t far_left = q > 1u ? q - 2u : 2u - q, far_right = q + 2u < width ? q + 2u : 2u * width - 4u - q;
        const int32_t own = rows[2][q], beside = rows[2][left] + rows[2][right], above_below = rows[1][q] + rows[3][q];
        const int32_t diagonal = rows[1][left] + rows[1][right] + rows[3][left] + rows[3][right];
        const int32_t far_beside = rows[2][far_left] + rows[2][far_right], far_above_below = rows[0][q] + rows[4][q];
        uint8_t *const red_or_blue = pixels + 3u * q + (in_red_row ? 0 : 2), *const green = pixels + 3u * q + 1;
        uint8_t *const blue_or_red = pixels + 3u * q + (in_red_row ? 2 : 0);
        if (in_red_row == (q % 2u == (mosaic - 1u) % 2u)) {
            *red_or_blue = (uint8_t)own;
            *green = of_64ths(24 * own + 16 * (beside + above_below) - 6 * (far_beside + far_above_below));
            *blue_or_red = of_64ths(36 * own + 16 * diagonal - 9 * (far_beside + far_above_below));
        } else {
            *red_or_blue = of_64ths(30 * own + 32 * beside - 6 * (diagonal + far_beside) + 3 * far_above_below);
            *green = (uint8_t)own;
            *blue_or_red = of_64ths(30 * own + 32 * above_below - 6 * (diagonal + far_above_below) + 3 * far_beside);
        }
    }
    return REMAC_FLIGHT_OK;
}

#if REMAC_FLIGHT_BANK
/* The entry with the least sum of absolute (power 1) or squared (power 2) differences, the lower one on a tie. Sums stay below 255^2 * channels. */
static uint32_t nearest_entry(const uint8_t *entries, const uint32_t *sums, uint32_t positions, size_t channels, uint32_t power)
{
    uint32_t best = 0, least = UINT32_MAX;
    for (uint32_t entry = 0; entry < BANK_ENTRIES; entry++) {
        uint32_t distance = 0;
        for (size_t c = 0; c < channels; c++) {
            const int32_t signed_difference = (int32_t)entries[entry * channels + c] - (int32_t)(sums[c] / positions);
            const uint32_t difference = (uint32_t)(signed_difference < 0 ? -signed_difference : signed_difference);
            distance += power == 1u ? difference : difference * difference;
        }
        if (distance < least) {
            least = distance;
            best = entry;
        }
    }
    return best;
}

static void choose_references(remac_flight *e)
{
    const uint32_t positions = e->width / 16u * (e->height / 16u);
    e->semantic = nearest_entry(BANK_SEMANTIC, e->semantic_sums, positions, REMAC_FLIGHT_DEEP, 1);
    e->texture = nearest_entry(BANK_TEXTURE, e->texture_sums, 4u * positions, REMAC_FLIGHT_BODY, 2);
}
#endif
