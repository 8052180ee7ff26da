/* SPDX-License-Identifier: MIT */
/* The part of module.c that binds kernels.h and layers.h. */
#include "binding.h"
#include "layers.h"

#define SIDE_MAX 16384 /* FORMAT 1 */

/* a * b, or SIZE_MAX, which is the size of nothing, where that is too much. */
static size_t times(size_t a, size_t b)
{
    return a != 0 && b > SIZE_MAX / a ? SIZE_MAX : a * b;
}

enum { PATH, HEAD, KERNEL, STRIDE, ITEMS, ROWS, COLUMNS, FIRST, LAST, GEOMETRY };         /* of the numbers that describe a layer, */
enum { CHANNELS, BLOCK, ROWS_DOWN, COLUMNS_RIGHT, SOURCE_GEOMETRY };                      /* then these of each source */
enum { WEIGHT, BIAS, SHIFT, NUMBERS, SCRATCH, OUT, SOURCES };                             /* of the buffers; the sources are the last */

/* Fills `source` in; 1 if it is one that layers.h allows and the buffer holds it, else 0. */
static int take_source(const remac_layer *layer, const uint32_t *number, const arguments *held, size_t s, remac_source *source)
{
    *source = (remac_source){held->view[SOURCES + s].buf, number[CHANNELS], number[BLOCK], (int)number[ROWS_DOWN] - 1, (int)number[COLUMNS_RIGHT] - 1};
    const size_t reach = source->block * layer->stride, positions = times(times(layer->items, layer->rows), layer->columns);
    const int moved = source->dy != 0 || source->dx != 0;
    return source->channels > 0 && source->block > 0 && number[BLOCK] <= REMAC_TAPS_MAX && number[ROWS_DOWN] <= 2 && number[COLUMNS_RIGHT] <= 2
           && (source->channels * source->block) % REMAC_INPUT_QUAD == 0 && (!moved || source->block == 1)
           && (layer->kernel == 1 || (layer->sources == 1 && source->block == 1 && !moved && source->channels % REMAC_INPUT_QUAD == 0))
           && held->length[SOURCES + s] == times(times(positions, reach * reach), source->channels);
}

/* Fills `layer` in; 1 if its sizes agree with each other and with the buffers, else 0. */
static int take_layer(remac_layer *layer, const arguments *held)
{
    const uint32_t *const number = held->view[NUMBERS].buf;
    size_t inputs = 0, taps = 0;
    layer->sources = (size_t)held->count - SOURCES;
    if (held->length[NUMBERS] != GEOMETRY + SOURCE_GEOMETRY * layer->sources)
        return 0;
    layer->kernel = number[KERNEL];
    layer->stride = number[STRIDE];
    layer->items = number[ITEMS];
    layer->rows = number[ROWS];
    layer->columns = number[COLUMNS];
    layer->out = held->view[OUT].buf;
    layer->head = number[HEAD] != 0;
    if ((layer->kernel != 1 && layer->kernel != 3) || layer->stride == 0 || layer->stride > (layer->kernel == 3 ? 2u : 1u)
        || layer->items == 0 || layer->rows == 0 || layer->columns == 0)
        return 0;
    for (size_t s = 0; s < layer->sources; s++) {
        if (!take_source(layer, number + GEOMETRY + SOURCE_GEOMETRY * s, held, s, &layer->source[s]))
            return 0;
        inputs += times(layer->kernel * layer->kernel * layer->source[s].block * layer->source[s].block, layer->source[s].channels);
        taps += layer->source[s].block;
    }
    const size_t outputs = held->length[BIAS], blocks = (outputs + REMAC_OUT_BLOCK - 1) / REMAC_OUT_BLOCK;
    const size_t positions = times(times(layer->items, layer->rows), layer->columns);
    if (taps > REMAC_TAPS_MAX || inputs > UINT32_MAX || outputs == 0 || outputs > UINT32_MAX || held->length[SHIFT] != outputs
        || held->length[WEIGHT] != times(blocks * REMAC_OUT_BLOCK, inputs) || held->length[SCRATCH] < remac_layer_scratch(layer)
        || held->length[OUT] != times(times(positions, outputs), layer->head ? sizeof(int32_t) : 1)
        || (uintptr_t)layer->out % (layer->head ? sizeof(int32_t) : 1) != 0 || number[FIRST] > number[LAST]
        || number[LAST] > layer->items * layer->rows || (number[PATH] != REMAC_PATH_BEST && !remac_path_usable(number[PATH])))
        return 0;
    layer->dense = (remac_dense){held->view[WEIGHT].buf, held->view[BIAS].buf, held->view[SHIFT].buf, (uint32_t)inputs, (uint32_t)outputs, number[PATH]};
    return 1;
}

/* layer(weight i8, bias i32[out], shift i8[out], numbers u32, scratch u8, out u8 or i32, source u8, ...): rows first .. last - 1 of a layer */
PyObject *py_layer(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{1, ANY, 0}, {4, ANY, 0}, {1, ANY, 0}, {4, ANY, 0}, {1, ANY, 1}, {1, ANY, 1},
                                  {1, ANY, 0}, {1, ANY, 0}, {1, ANY, 0}, {1, ANY, 0}, {1, ANY, 0}};
    const Py_ssize_t count = PyTuple_Size(args);
    arguments a;
    remac_layer layer;
    (void)self;
    if (!take(&a, args, wanted, count > SOURCES && count <= SOURCES + REMAC_SOURCES_MAX ? (int)count : SOURCES + 1, 0)
        || !require(&a, take_layer(&layer, &a), "the sizes of the layer do not agree"))
        return NULL;
    const uint32_t *const number = a.view[NUMBERS].buf;
    Py_BEGIN_ALLOW_THREADS
    remac_layer_run(&layer, number[FIRST], number[LAST], a.view[SCRATCH].buf);
    Py_END_ALLOW_THREADS
    return release(&a, Py_NewRef(Py_None));
}

/* Fills in the layers of an analysis from three buffers each; 1 if they follow on each other, else 0. */
static int take_analysis(remac_dense *layers, const arguments *held, int first, uint32_t path)
{
    for (size_t n = 0; n < REMAC_ANALYSIS_LAYERS; n++) {
        const size_t at = (size_t)first + 3 * n, outputs = held->length[at + 1], rows = (outputs + REMAC_OUT_BLOCK - 1) / REMAC_OUT_BLOCK * REMAC_OUT_BLOCK;
        if (outputs == 0 || outputs % REMAC_INPUT_QUAD != 0 || outputs > UINT16_MAX || held->length[at + 2] != outputs || held->length[at] % rows != 0)
            return 0;
        layers[n] = (remac_dense){held->view[at].buf, held->view[at + 1].buf, held->view[at + 2].buf, (uint32_t)(held->length[at] / rows),
                                  (uint32_t)outputs, path};
    }
    return layers[REMAC_STEM].inputs == 192 && layers[REMAC_BODY].inputs == 9 * layers[REMAC_STEM].out
           && layers[REMAC_REDUCE].inputs == 9 * layers[REMAC_BODY].out && layers[REMAC_DEEP].inputs == 9 * layers[REMAC_REDUCE].out
           && layers[REMAC_HEAD].inputs == layers[REMAC_DEEP].out + 768 && layers[REMAC_HYPER_IN].inputs == 4 * layers[REMAC_DEEP].out
           && layers[REMAC_HYPER_OUT].inputs == 4 * layers[REMAC_HYPER_IN].out
           && (path == REMAC_PATH_BEST || remac_path_usable(path));
}

/* 1 if memory, pixels and results have the sizes that remac_analyse takes, else 0. */
static int analysis_fits(const remac_dense *layers, const arguments *held, size_t height, size_t width)
{
    if (height == 0 || width == 0 || height > SIDE_MAX || width > SIDE_MAX || held->length[1] != times(height * 3, width))
        return 0;
    const size_t rows = (height + 63) / 64, columns = (width + 63) / 64;
    return held->length[0] >= remac_analysis_bytes(layers, 64 * columns) && held->length[2] == times(rows * columns * 16, layers[REMAC_HEAD].out)
           && held->length[3] == times(rows * columns, layers[REMAC_HYPER_OUT].out) && held->length[4] == layers[REMAC_BODY].out
           && held->length[5] == layers[REMAC_DEEP].out;
}

/* analyse(memory u8, pixels u8, y i32, z u8, texture u32, semantic u32, then weight i8, bias i32, shift i8 of stem .. hyper_out; height, width, path) */
PyObject *py_analyse(PyObject *self, PyObject *args)
{
    enum { FIRST_LAYER = 6, BUFFERS = FIRST_LAYER + 3 * REMAC_ANALYSIS_LAYERS };
    spec wanted[BUFFERS] = {{1, ANY, 1}, {1, ANY, 0}, {4, ANY, 1}, {1, ANY, 1}, {4, ANY, 1}, {4, ANY, 1}};
    arguments a;
    remac_dense layers[REMAC_ANALYSIS_LAYERS];
    (void)self;
    for (int n = FIRST_LAYER; n < BUFFERS; n++)
        wanted[n] = (spec){(n - FIRST_LAYER) % 3 == 1 ? 4 : 1, ANY, 0};
    if (!take(&a, args, wanted, BUFFERS, 3) || !require(&a, a.integer[2] < REMAC_PATH_COUNT, "there is no such path")
        || !require(&a, take_analysis(layers, &a, FIRST_LAYER, (uint32_t)a.integer[2]), "the layers are not those of an analysis")
        || !require(&a, analysis_fits(layers, &a, a.integer[0], a.integer[1]), "the sizes of the analysis do not agree"))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    remac_analyse(layers, a.view[1].buf, a.integer[0], a.integer[1], a.view[0].buf, a.view[2].buf, a.view[3].buf, a.view[4].buf, a.view[5].buf);
    Py_END_ALLOW_THREADS
    return release(&a, Py_NewRef(Py_None));
}

/* path_usable(path) -> 1 or 0; path_best() -> path */
PyObject *py_path_usable(PyObject *self, PyObject *args)
{
    arguments a;
    (void)self;
    if (!take(&a, args, NULL, 0, 1))
        return NULL;
    return release(&a, PyLong_FromLong(a.integer[0] < REMAC_PATH_COUNT && remac_path_usable((uint32_t)a.integer[0])));
}

PyObject *py_path_best(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    return PyLong_FromUnsignedLong(remac_path_best());
}
