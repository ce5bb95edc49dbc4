// An imitation of libcuda.so for gpu-check/tests/gpu_check.rs: enough of the driver API to walk gpu-check's whole way on a
// machine without a GPU. Device memory is a mapped file, streams run at once, kernels are known by name, and times are
// those of the host. Its figures mean nothing. IMITATION_FAULT in the environment makes one thing go wrong.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef int R;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_READY = 600, ILLEGAL_ADDRESS = 700 };
enum { SMS = 132, STEP = 8 };

static int fault(const char *name) {
    const char *wanted = getenv("IMITATION_FAULT");
    return wanted && !strcmp(wanted, name);
}

R cuInit(unsigned flags) {
    if (fault("no device")) return NO_DEVICE;
    if (fault("mismatch")) return 803;
    if (fault("hang")) for (;;) pause();
    if (fault("crash")) abort();
    return flags ? INVALID_VALUE : OK;
}
R cuDriverGetVersion(int *v) { *v = 13000; return OK; }
R cuDeviceGetCount(int *n) { *n = 1; return OK; }
R cuDeviceGet(int *d, int i) { *d = i; return i ? INVALID_VALUE : OK; }
R cuDeviceGetName(char *s, int n, int d) { snprintf(s, n, "Imitation %d", d); return OK; }
R cuDeviceGetPCIBusId(char *s, int n, int d) { snprintf(s, n, "0000:0%d:00.0", d); return OK; }
R cuDeviceGetUuid_v2(char *u, int d) { memset(u, 0xA0 + d, 16); return OK; }
R cuDeviceTotalMem_v2(size_t *n, int d) { *n = (size_t)1 << 30; return d ? INVALID_VALUE : OK; }
R cuDeviceGetAttribute(int *v, int attribute, int d) {
    switch (attribute) {
    case 16: *v = SMS; break;
    case 75: *v = 9; break;
    case 76: *v = 0; break;
    default: *v = 1;
    }
    return d ? INVALID_VALUE : OK;
}
R cuGetErrorName(R r, const char **s) { *s = r == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : NULL; return *s ? OK : INVALID_VALUE; }
R cuGetErrorString(R r, const char **s) { *s = r == ILLEGAL_ADDRESS ? "an illegal memory access" : NULL; return *s ? OK : INVALID_VALUE; }

static int context;
static int retained;
R cuDevicePrimaryCtxRetain(void **c, int d) { *c = &context; retained++; return d ? INVALID_VALUE : OK; }
R cuDevicePrimaryCtxRelease_v2(int d) { retained--; return d ? INVALID_VALUE : OK; }
R cuCtxSetCurrent(void *c) { return c == NULL || c == &context ? OK : INVALID_VALUE; }
R cuMemGetInfo_v2(size_t *f, size_t *t) { *f = (size_t)512 << 20; *t = (size_t)1 << 30; return OK; }

// Allocations, so that lengths and handles can be found again.
struct block { char path[64]; char *start; size_t bytes; int fd; };
static struct block blocks[64];
static struct block *find(uint64_t a) {
    for (int i = 0; i < 64; i++)
        if (blocks[i].start && (uint64_t)blocks[i].start <= a && a < (uint64_t)blocks[i].start + blocks[i].bytes) return &blocks[i];
    return NULL;
}
static R map(const char *path, int owned_fd, uint64_t *a) {
    struct block *b = blocks;
    while (b < blocks + 64 && b->start) b++;
    int fd = open(path, O_RDWR);
    if (b == blocks + 64 || fd < 0) return INVALID_VALUE;
    size_t n = lseek(fd, 0, SEEK_END);
    b->start = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (b->start == MAP_FAILED) { b->start = NULL; return OUT_OF_MEMORY; }
    b->bytes = n;
    b->fd = owned_fd;
    snprintf(b->path, sizeof b->path, "%s", path);
    *a = (uint64_t)b->start;
    return OK;
}
static R unmap(uint64_t a) {
    struct block *b = find(a);
    if (!b || (uint64_t)b->start != a) return INVALID_VALUE;
    if (b->fd >= 0) close(b->fd);
    munmap(b->start, b->bytes);
    b->start = NULL;
    return OK;
}
R cuMemAlloc_v2(uint64_t *a, size_t n) {
    // A file without a name: whatever way this process ends, nothing is left behind.
    int fd = memfd_create("device-memory", 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", getpid(), fd);
    return n && !ftruncate(fd, n) ? map(path, fd, a) : INVALID_VALUE;
}
R cuMemFree_v2(uint64_t a) { return unmap(a); }
struct handle { char bytes[64]; };
R cuIpcGetMemHandle(struct handle *h, uint64_t a) {
    struct block *b = find(a);
    if (!b || (uint64_t)b->start != a) return INVALID_VALUE;
    memcpy(h->bytes, b->path, 64);
    return OK;
}
R cuIpcOpenMemHandle_v2(uint64_t *a, struct handle h, unsigned flags) { return flags == 1 ? map(h.bytes, -1, a) : INVALID_VALUE; }
R cuIpcCloseMemHandle(uint64_t a) { return unmap(a); }
R cuMemHostAlloc(void **p, size_t n, unsigned flags) { *p = malloc(n); return *p && !flags ? OK : OUT_OF_MEMORY; }
R cuMemFreeHost(void *p) { free(p); return OK; }

// A range that is not inside one allocation is what a device would fault at.
static int inside(uint64_t a, size_t n) { struct block *b = find(a); return b && a + n <= (uint64_t)b->start + b->bytes; }
R cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *s) { if (!s || !inside(to, n)) return ILLEGAL_ADDRESS; memcpy((void *)to, from, n); return OK; }
R cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *s) {
    if (!s || !inside(from, n)) return ILLEGAL_ADDRESS;
    memcpy(to, (void *)from, n);
    if (fault("copies lie")) ((char *)to)[n / 3] ^= 1;
    return OK;
}
R cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, void *s) { if (!s || !inside(to, n) || !inside(from, n)) return ILLEGAL_ADDRESS; memcpy((void *)to, (void *)from, n); return OK; }
R cuMemcpyDtoH_v2(void *to, uint64_t from, size_t n) { if (!inside(from, n)) return ILLEGAL_ADDRESS; memcpy(to, (void *)from, n); return OK; }
R cuMemsetD32Async(uint64_t to, unsigned word, size_t n, void *s) {
    if (!s || !inside(to, n * 4)) return ILLEGAL_ADDRESS;
    for (size_t i = 0; i < n; i++) ((unsigned *)to)[i] = word;
    return OK;
}

// A stream knows the SMs it may use: those of its green context, or all.
struct green { unsigned first, count; int streams; };
struct stream { struct green *green; };
struct event { double at; };
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
R cuStreamCreate(struct stream **s, unsigned flags) { *s = calloc(1, sizeof **s); return flags == 1 ? OK : INVALID_VALUE; }
R cuStreamDestroy_v2(struct stream *s) { if (s->green) s->green->streams--; free(s); return OK; }
R cuStreamQuery(struct stream *s) { (void)s; return OK; }
R cuStreamWaitEvent(struct stream *s, struct event *e, unsigned flags) { return s && e && !flags ? OK : INVALID_VALUE; }
R cuEventCreate(struct event **e, unsigned flags) { (void)flags; *e = calloc(1, sizeof **e); return OK; }
R cuEventDestroy_v2(struct event *e) { free(e); return OK; }
R cuEventRecord(struct event *e, struct stream *s) { e->at = now(); return s ? OK : INVALID_VALUE; }
R cuEventQuery(struct event *e) {
    static int asked;
    if (fault("never done")) return NOT_READY;
    return e && asked++ % 2 ? OK : NOT_READY;
}
R cuEventElapsedTime(float *ms, struct event *from, struct event *to) { *ms = (to->at - from->at) * 1e3; return OK; }

// Green contexts: groups are multiples of STEP.
struct resource { int type; char padding[92]; unsigned count, min, step; char rest[32]; unsigned first; };
_Static_assert(sizeof(struct resource) == 144, "CUdevResource is 144 bytes");
R cuDeviceGetDevResource(int d, struct resource *r, int type) { *r = (struct resource){.type = type, .count = SMS, .min = STEP, .step = STEP}; return d ? INVALID_VALUE : OK; }
R cuDevSmResourceSplitByCount(struct resource *groups, unsigned *n, const struct resource *in, struct resource *rest, unsigned flags, unsigned at_least) {
    unsigned step = flags & 1 ? 2 : STEP, count = (at_least + step - 1) / step * step;
    if (*n != 1 || count > in->count) return 914;
    groups[0] = *rest = *in;
    groups[0].count = count;
    rest->first = in->first + count;
    rest->count = in->count - count;
    return OK;
}
R cuDevResourceGenerateDesc(struct resource **d, struct resource *r, unsigned n) { *d = malloc(sizeof **d); **d = *r; return n == 1 ? OK : INVALID_VALUE; }
R cuGreenCtxCreate(struct green **g, struct resource *d, int device, unsigned flags) {
    *g = malloc(sizeof **g);
    **g = (struct green){d->first, d->count, 0};
    free(d);
    return flags == 1 && !device && retained ? OK : INVALID_VALUE;
}
R cuGreenCtxDestroy(struct green *g) { if (g->streams) abort(); free(g); return OK; }
R cuGreenCtxStreamCreate(struct stream **s, struct green *g, unsigned flags, int priority) {
    *s = malloc(sizeof **s);
    (*s)->green = g;
    g->streams++;
    return flags == 1 && !priority ? OK : INVALID_VALUE;
}

// Kernels.
R cuModuleLoadDataEx(char **m, const char *text, unsigned n, int *options, void **values) {
    if (fault("no compiler") && n == 2 && options[0] == 5 && options[1] == 6) { snprintf(values[0], (size_t)values[1], "ptxas fatal: imitation"); return 218; }
    *m = strdup(text);
    return OK;
}
R cuModuleUnload(char *m) { free(m); return OK; }
R cuModuleGetFunction(char **f, char *m, const char *name) {
    char entry[64];
    snprintf(entry, sizeof entry, ".entry %s(", name);
    *f = strstr(m, entry);
    return *f ? OK : 500;
}
R cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, char *f, int threads, size_t shared) { *n = f && threads && !shared; return OK; }
static int is(const char *f, const char *name) { return !strncmp(f + 7, name, strlen(name)); }
R cuLaunchKernel(char *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, struct stream *s, void **p, void **extra) {
    if (gy != 1 || gz != 1 || by != 1 || bz != 1 || shared || !s || extra) return INVALID_VALUE;
    size_t threads = (size_t)gx * bx;
    if (is(f, "spin")) return OK;
    if (is(f, "note_sm")) {
        unsigned first = s->green ? s->green->first : 0, count = s->green ? s->green->count : SMS;
        for (unsigned i = 0; i < count && i < gx; i++) ((unsigned *)*(uint64_t *)p[0])[first + i] = 1;
        return OK;
    }
    if (is(f, "read_sum")) {
        size_t words = threads * 16 * *(unsigned *)p[1];
        if (!inside(*(uint64_t *)p[0], words * 4)) return ILLEGAL_ADDRESS;
        *(unsigned *)*(uint64_t *)p[2] += *(unsigned *)*(uint64_t *)p[0] * (unsigned)words;
        return OK;
    }
    if (is(f, "copy_tiles")) {
        char *to = *(char **)p[0], *from = *(char **)p[1];
        size_t stride = *(uint64_t *)p[2], tile = *(unsigned *)p[3];
        if (!inside((uint64_t)to, gx * tile) || !inside((uint64_t)from, (gx - 1) * stride + tile)) return ILLEGAL_ADDRESS;
        for (size_t b = 0; b < gx; b++) memcpy(to + b * tile, from + b * stride, tile);
        return OK;
    }
    if (is(f, "mma_loop") || is(f, "wgmma_loop")) {
        if (fault("wgmma faults") && is(f, "wgmma_loop")) return ILLEGAL_ADDRESS;
        float sum = (is(f, "mma_loop") ? 2048.f : 32768.f) * *(unsigned *)p[0];
        if (!inside(*(uint64_t *)p[3], threads * 4)) return ILLEGAL_ADDRESS;
        for (size_t i = 0; i < threads; i++) ((float *)*(uint64_t *)p[3])[i] = sum;
        return OK;
    }
    return 500;
}
