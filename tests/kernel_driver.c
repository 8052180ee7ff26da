/* Runs cases from standard input through kernels.c, every array in heap memory of exactly its size, so that sanitizers see each byte read or written
 * beyond it. Built and fed by test_kernels.py; all numbers in the byte order of the machine.
 *   first answer: the best path (u32)
 *   then cases:   path, head, out, inputs, positions, T, size (u32), T times offset, step, channels (u32), weight i8[ceil(out / 16) * 16 * inputs],
 *                 bias i32[out], shift i8[out], data u8[size]     -> 1 and the results u8 or i32[positions][out], or 0 where the path is not usable
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernels.h"

#define TAPS_MAX 32

static void *take(size_t size)
{
    void *memory = malloc(size); /* not rounded up: one byte more is an error */
    if (memory == NULL || (size > 0 && fread(memory, 1, size, stdin) != size))
        exit(2);
    return memory;
}

static void answer(const void *data, size_t size)
{
    if (fwrite(data, 1, size, stdout) != size)
        exit(2);
}

static void run(const uint32_t *number)
{
    const uint32_t path = number[0], head = number[1], outputs = number[2], inputs = number[3], positions = number[4], taps = number[5];
    const uint32_t usable = (uint32_t)(path == REMAC_PATH_BEST || remac_path_usable(path));
    const size_t count = (size_t)positions * outputs * (head ? sizeof(int32_t) : 1);
    uint32_t *places = take((size_t)taps * 12);
    int8_t *weight = take((size_t)(outputs + 15) / 16 * 16 * inputs);
    int32_t *bias = take((size_t)outputs * 4);
    int8_t *shift = take(outputs);
    uint8_t *data = take(number[6]);
    void *out = malloc(count);
    remac_tap tap[TAPS_MAX];
    const remac_dense layer = {weight, bias, shift, inputs, outputs, path};
    if (taps > TAPS_MAX || out == NULL)
        exit(2);
    for (uint32_t t = 0; t < taps; t++)
        tap[t] = (remac_tap){data + places[3 * t], places[3 * t + 1], places[3 * t + 2]};
    answer(&usable, sizeof usable);
    if (usable) {
        if (head)
            remac_row_i32(&layer, tap, taps, positions, out);
        else
            remac_row_u8(&layer, tap, taps, positions, out);
        answer(out, count);
    }
    free(out);
    free(data);
    free(shift);
    free(bias);
    free(weight);
    free(places);
}

int main(void)
{
    const uint32_t best = remac_path_best();
    uint32_t number[7];
    answer(&best, sizeof best);
    while (fread(number, sizeof number, 1, stdin) == 1)
        run(number);
    return 0;
}
