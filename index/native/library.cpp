// The C functions: choose an instruction set, pack the query once, hand pages to threads.
//
// Each returns 0, or what was wrong: 1 no such instruction set here, 2 no kernel for this codec and precision, 3 out of
// memory, 4 a code outside of the table. Sizes and addresses are the caller's to check.
#include <atomic>
#include <limits>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "native.h"

namespace octavo {
namespace {

enum Failure : int32_t { NONE, NO_SET, NO_KERNEL, NO_MEMORY, NO_CODE };

struct Entry {
    const Set *set;
    bool here;
};

// Best last.
const std::vector<Entry> &sets() {
    static const std::vector<Entry> all = [] {
        std::vector<Entry> found{{&portable, true}};
#if defined(__x86_64__)
        __builtin_cpu_init();
        const bool second = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                            __builtin_cpu_supports("f16c") && __builtin_cpu_supports("popcnt");
        found.push_back({&avx2, second});
        found.push_back({&avx512, second && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                                      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
                                      __builtin_cpu_supports("avx512vpopcntdq")});
#endif
#if defined(__aarch64__)
        found.push_back({&neon, true});
#endif
        return found;
    }();
    return all;
}

const Set *set_of(int32_t index) {
    if (index < 0 || index >= static_cast<int32_t>(sets().size()) || !sets()[static_cast<size_t>(index)].here)
        return nullptr;
    return sets()[static_cast<size_t>(index)].set;
}

// Memory for n of T on a cache line.
template <class T>
struct Aligned {
    T *at;
    explicit Aligned(int64_t n)
        : at(static_cast<T *>(::operator new(sizeof(T) * static_cast<size_t>(n) + 64, std::align_val_t(64)))) {}
    ~Aligned() { ::operator delete(at, std::align_val_t(64)); }
    Aligned(const Aligned &) = delete;
    Aligned &operator=(const Aligned &) = delete;
};

// Call work(first, last) for runs of the n items, on that many threads; runs are taken as threads become free.
template <class F>
void share(int64_t n, int64_t run, int32_t threads, F work) {
    std::atomic<int64_t> next{0};
    const auto loop = [&] {
        work([&](auto each) {
            for (int64_t first; (first = next.fetch_add(run)) < n;)
                for (int64_t i = first; i < n && i < first + run; i++) each(i);
        });
    };
    std::vector<std::thread> others;
    const int64_t most = (n + run - 1) / run;
    try {
        for (int64_t i = 1; i < threads && i < most; i++) others.emplace_back(loop);
    } catch (const std::system_error &) {  // no more threads to be had: those there are do the work
    }
    loop();
    for (auto &thread : others) thread.join();
}

struct Request {
    Query query;
    const int64_t *query_offsets;
    int64_t queries, pages;
    float *scores;     // (queries, pages)
    int32_t *winners;  // (pages, tokens) or null
};

// page_of(i) gives the i-th page.
template <class F>
int32_t score_pages(const Kernel &kernel, Pack &pack, const Request &request, int32_t threads, F page_of) {
    const int64_t tokens = request.query.tokens;
    std::atomic<bool> failed{false};
    share(request.pages, 4, threads, [&](auto pages) {
        try {
            Aligned<uint8_t> rows(kernel.scratch_bytes(request.query));
            Aligned<float> best(pack.padded);
            Aligned<int32_t> where(pack.padded);
            Scratch scratch{rows.at, best.at, where.at, request.winners != nullptr, nullptr};
            pages([&](int64_t i) {
                const Page page = page_of(i);
                for (int64_t j = 0; j < pack.padded; j++) {
                    best.at[j] = -std::numeric_limits<float>::infinity();
                    where.at[j] = page.rows ? 0 : -1;
                }
                if (page.rows) kernel.score(pack, page, scratch);
                for (int64_t q = 0; q < request.queries; q++) {
                    double sum = 0;
                    for (int64_t j = request.query_offsets[q]; j < request.query_offsets[q + 1]; j++)
                        sum += static_cast<double>(best.at[j]) * static_cast<double>(pack.factor[j]);
                    if (!page.rows) sum = -std::numeric_limits<double>::infinity();
                    request.scores[q * request.pages + i] = static_cast<float>(sum);
                }
                if (request.winners)
                    for (int64_t j = 0; j < tokens; j++) request.winners[i * tokens + j] = where.at[j];
            });
        } catch (const std::bad_alloc &) {
            failed = true;
        }
    });
    return failed ? NO_MEMORY : NONE;
}

constexpr int64_t MOST_DIGITS = 3;

struct PackMemory {
    Aligned<uint8_t> data;
    Aligned<int32_t> start;
    Aligned<float> factor;
    Pack pack;
    PackMemory(const Kernel &kernel, const Query &query, int32_t codec)
        : data(kernel.data_bytes(query)),
          start((query.tokens + 64) * MOST_DIGITS),
          factor(query.tokens + 64),
          pack{0, 0, 0, 0, data.at, start.at, factor.at, codec} {
        kernel.pack(query, pack);
    }
};

template <class F>
int32_t guarded(F f) {
    try {
        return f();
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
}

}  // namespace
}  // namespace octavo

using namespace octavo;

extern "C" {

#define OCTAVO_API __attribute__((visibility("default")))

// Rises with every change of these functions, so that a library left by an older build is not called.
OCTAVO_API int32_t octavo_version() { return 3; }

// Name of the index-th instruction set, best last; "" for one this processor lacks; null past the end.
OCTAVO_API const char *octavo_set(int32_t index) {
    if (index < 0 || index >= static_cast<int32_t>(sets().size())) return nullptr;
    return set_of(index) ? set_of(index)->name : "";
}

// values, scales: (pages) addresses; lengths: (pages) rows; scales and winners may be null.
OCTAVO_API int32_t octavo_maxsim(int32_t set, int32_t codec, int32_t precision, int32_t threads, const float *query,
                                 const int64_t *query_offsets, int64_t queries, int64_t dim, const uint64_t *values,
                                 const int64_t *lengths, const uint64_t *scales, int64_t pages, float *scores,
                                 int32_t *winners) {
    const Set *chosen = set_of(set);
    if (!chosen) return NO_SET;
    const Query tokens{query, query_offsets[queries], dim};
    const Kernel *kernel = chosen->kernel(codec, precision, tokens);
    if (!kernel) return NO_KERNEL;
    return guarded([&] {
        const Request request{tokens, query_offsets, queries, pages, scores, winners};
        PackMemory memory(*kernel, request.query, codec);
        return score_pages(*kernel, memory.pack, request, threads, [&](int64_t i) {
            return Page{reinterpret_cast<const uint8_t *>(values[i]),
                        scales ? reinterpret_cast<const uint8_t *>(scales[i]) : nullptr,
                        lengths[i],
                        i + 1 < pages ? reinterpret_cast<const uint8_t *>(values[i + 1]) : nullptr};
        });
    });
}

// rows, scales: those of the centroids, in the codec INT8; tables: (ceil(tokens / 32), centroids, 32).
OCTAVO_API int32_t octavo_tables(int32_t set, const float *query, int64_t tokens, int64_t dim, const uint8_t *rows,
                                 const uint8_t *scales, int64_t centroids, uint8_t *tables) {
    const Set *chosen = set_of(set);
    if (!chosen) return NO_SET;
    const Query asked{query, tokens, dim};
    const Kernel *kernel = chosen->kernel(INT8, FLOAT_QUERY, asked);
    return guarded([&]() -> int32_t {
        PackMemory memory(*kernel, asked, INT8);
        const int64_t padded = memory.pack.padded;
        Aligned<uint8_t> scratch_rows(kernel->scratch_bytes(asked));
        Aligned<float> similarities(centroids * padded), columns(4 * padded);
        Scratch scratch{scratch_rows.at, columns.at, nullptr, false, similarities.at};
        kernel->score(memory.pack, Page{rows, scales, centroids, nullptr}, scratch);
        chosen->tables(memory.pack, similarities.at, centroids, columns.at, tables);
        return NONE;
    });
}

// Inner products of a vector (dim) with `count` of the rows of halves, each `dim` of them.
OCTAVO_API int32_t octavo_products(int32_t set, int32_t threads, const float *vector, int64_t dim,
                                   const uint8_t *halves, const int64_t *rows, int64_t count, float *products) {
    const Set *chosen = set_of(set);
    if (!chosen) return NO_SET;
    return guarded([&]() -> int32_t {
        share(count, 1024, threads, [&](auto each) {
            each([&](int64_t i) {
                if (i + 4 < count)
                    for (int64_t at = 0; at < 2 * dim; at += 64)
                        __builtin_prefetch(halves + rows[i + 4] * 2 * dim + at);
                products[i] = chosen->product(vector, halves + rows[i] * 2 * dim, dim);
            });
        });
        return NONE;
    });
}

// table: (centroids, 32); offsets: (n + 1) into codes; rows: (pages) of the n to scan, or null for the first `pages`.
OCTAVO_API int32_t octavo_scan(int32_t set, int32_t threads, const uint8_t *table, int64_t centroids,
                               const uint16_t *codes, const int64_t *offsets, const int64_t *rows, int64_t pages,
                               uint32_t *sums) {
    const Set *chosen = set_of(set);
    if (!chosen) return NO_SET;
    std::atomic<bool> outside{false};
    return guarded([&]() -> int32_t {
        share(pages, 256, threads, [&](auto each) {
            each([&](int64_t i) {
                const int64_t row = rows ? rows[i] : i, count = offsets[row + 1] - offsets[row];
                const uint16_t *from = codes + offsets[row];
                if (count && chosen->largest(from, count) >= centroids) {
                    outside = true;
                    return;
                }
                sums[i] = chosen->scan(table, from, count);
            });
        });
        return outside ? NO_CODE : NONE;
    });
}
}
