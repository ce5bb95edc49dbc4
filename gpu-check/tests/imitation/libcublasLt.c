// An imitation of libcublasLt.so beside that of libcuda.so. It insists on the arguments that the real library documents, and
// computes only the elements in rows and columns 0, 1234, 4097 and 8191, which are those that gpu-check looks at.

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, OP_N = 0, OP_T = 1, TRANSA = 3, TRANSB = 4, WORKSPACE_MAX = 1 };

struct description { int transposed[2]; };
struct layout { uint64_t rows, columns; int64_t leading; };
struct result { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; };

static int alive;
static int made(void **handle, size_t bytes) { *handle = calloc(1, bytes); alive++; return OK; }
static int ended(void *handle) { free(handle); alive--; return handle ? OK : INVALID_VALUE; }

int cublasLtCreate(void **h) { return made(h, 1); }
int cublasLtDestroy(void *h) { if (alive != 1) abort(); return ended(h); }
size_t cublasLtGetVersion(void) { return 130000; }
int cublasLtMatmulDescCreate(void **d, int compute, int scale) { return compute == COMPUTE_32F && scale == R_32F ? made(d, sizeof(struct description)) : NOT_SUPPORTED; }
int cublasLtMatmulDescDestroy(void *d) { return ended(d); }
int cublasLtMatmulDescSetAttribute(struct description *d, int attribute, const int *value, size_t bytes) {
    if (bytes != 4 || (attribute != TRANSA && attribute != TRANSB)) return INVALID_VALUE;
    d->transposed[attribute - TRANSA] = *value;
    return OK;
}
int cublasLtMatrixLayoutCreate(struct layout **l, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    if (type != R_16BF) return NOT_SUPPORTED;
    made((void **)l, sizeof **l);
    **l = (struct layout){rows, columns, leading};
    return OK;
}
int cublasLtMatrixLayoutDestroy(void *l) { return ended(l); }
int cublasLtMatmulPreferenceCreate(void **p) { return made(p, sizeof(uint64_t)); }
int cublasLtMatmulPreferenceDestroy(void *p) { return ended(p); }
int cublasLtMatmulPreferenceSetAttribute(uint64_t *p, int attribute, const uint64_t *value, size_t bytes) {
    if (bytes != 8 || attribute != WORKSPACE_MAX) return INVALID_VALUE;
    *p = *value;
    return OK;
}

// op(A) is m × k, op(B) k × n, D m × n, all column after column.
static int fits(const struct description *d, const struct layout *a, const struct layout *b, const struct layout *c) {
    return d->transposed[0] == OP_T && d->transposed[1] == OP_N && a->rows == b->rows && c->rows == a->columns && c->columns == b->columns
        && a->leading == (int64_t)a->rows && b->leading == (int64_t)b->rows && c->leading == (int64_t)c->rows;
}
int cublasLtMatmulAlgoGetHeuristic(void *h, struct description *d, struct layout *a, struct layout *b, struct layout *c, struct layout *out, uint64_t *p, int asked, struct result *results, int *found) {
    if (!h || !fits(d, a, b, c) || c != out || asked < 3) return INVALID_VALUE;
    memset(results, 0, 3 * sizeof *results);
    results[0].algorithm[0] = results[2].algorithm[0] = 42;
    results[1].state = NOT_SUPPORTED;
    results[2].workspace = *p;
    *found = 3;
    return OK;
}

static float widened(uint16_t bits) { uint32_t word = (uint32_t)bits << 16; float value; memcpy(&value, &word, 4); return value; }
static uint16_t rounded(double value) { float narrow = value; uint32_t word; memcpy(&word, &narrow, 4); return (word + 0x7FFF + (word >> 16 & 1)) >> 16; }
int cublasLtMatmul(void *h, struct description *d, const float *alpha, const uint16_t *A, struct layout *a, const uint16_t *B, struct layout *b, const float *beta, const uint16_t *C, struct layout *c, uint16_t *D, struct layout *out, const uint64_t *algorithm, void *workspace, size_t workspace_bytes, void *stream) {
    static const size_t looked_at[] = {0, 1234, 4097, 8191};
    if (!h || !fits(d, a, b, c) || c != out || C != D || *alpha != 1 || *beta != 0 || *algorithm != 42 || !workspace || !workspace_bytes || !stream) return INVALID_VALUE;
    const char *fault = getenv("IMITATION_FAULT");
    double wrong = fault && !strcmp(fault, "product lies") ? 1.5 : 1;
    for (int i = 0; i < 16; i++) {
        size_t m = looked_at[i / 4], n = looked_at[i % 4];
        double sum = 0;
        for (size_t k = 0; k < a->rows; k++) sum += (double)widened(A[m * a->leading + k]) * widened(B[n * b->leading + k]);
        D[n * out->leading + m] = rounded(sum * wrong);
    }
    return OK;
}
