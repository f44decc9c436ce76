// What the files of the native kernels share: the plain C types, and the table of kernels that each instruction set
// fills. A kernel scores one page at a time; library.cpp hands pages to threads. Nothing here is compiled for a special
// set.
#pragma once
#include <cstddef>
#include <cstdint>

#define OCTAVO_INLINE inline __attribute__((always_inline))

namespace octavo {

enum Codec : int32_t { FP32, FP16, INT8, INT4, BINARY };
enum Precision : int32_t { FLOAT_QUERY, INT8_QUERY, BINARY_QUERY };

// Query tokens as the caller has them. (tokens, dim) float32, one after another.
struct Query {
    const float *values;
    int64_t tokens, dim;
};

// One page's rows in place. ahead: where the rows lie that will be wanted next, to be prefetched, or null.
struct Page {
    const uint8_t *values;
    const uint8_t *scales;  // float16, one a row, at any address; null for codecs without
    int64_t rows;
    const uint8_t *ahead;
};

// What a kernel made of the query: made once a call, read by all threads. Freed by whoever made it.
struct Pack {
    int64_t tokens, dim, units, padded;  // units: broadcasts a row; padded: tokens rounded up to whole vectors
    uint8_t *data;                       // blocks of query tokens, unit after unit
    int32_t *start;                      // what integer sums start from, one a column
    float *factor;                       // (padded) what a token's best is multiplied by at the end
    int32_t codec;
};

// One thread's own memory. rows: decoded rows of a tile; best, where: (padded) a query token; all: null, or where to
// leave every similarity of a page, (rows, padded), without the factors.
struct Scratch {
    uint8_t *rows;
    float *best;
    int32_t *where;
    bool argmax;
    float *all;
};

// A way to score pages: sizes in bytes of what the library must allocate, then the two steps.
struct Kernel {
    int64_t (*data_bytes)(const Query &);
    int64_t (*scratch_bytes)(const Query &);
    void (*pack)(const Query &, Pack &);
    void (*score)(const Pack &, const Page &, Scratch &);
};

// An instruction set. kernel: null where a codec has no kernel for that precision of the query.
struct Set {
    const char *name;
    const Kernel *(*kernel)(int32_t codec, int32_t precision, const Query &);
    uint16_t (*largest)(const uint16_t *codes, int64_t count);  // 0 of none
    uint32_t (*scan)(const uint8_t *table, const uint16_t *codes, int64_t count);
    void (*tables)(const Pack &, const float *similarities, int64_t rows, float *columns, uint8_t *to);
    float (*product)(const float *vector, const uint8_t *halves, int64_t dim);
};

extern const Set portable;
#if defined(__x86_64__)
extern const Set avx2, avx512;
#endif
#if defined(__aarch64__)
extern const Set neon;
#endif

}  // namespace octavo
