// The C functions: choose an instruction set, pack the query once, hand pages to threads.
//
// Each returns 0, or what was wrong: 1 no such instruction set here, 2 no kernel for this codec and precision, 3 out of
// memory, 4 a code outside of the table or an offset outside of the codes. Sizes and addresses are the caller's to check.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
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

// page_of(i) gives the i-th page; those from `first` to before `last` are scored.
template <class F>
int32_t score_pages(const Kernel &kernel, Pack &pack, const Request &request, int32_t threads, int64_t first,
                    int64_t last, F page_of) {
    const int64_t tokens = request.query.tokens;
    std::atomic<bool> failed{false};
    share(last - first, 4, threads, [&](auto pages) {
        try {
            Aligned<uint8_t> rows(kernel.scratch_bytes(request.query));
            Aligned<float> best(pack.padded);
            Aligned<int32_t> where(pack.padded);
            Scratch scratch{rows.at, best.at, where.at, request.winners != nullptr, nullptr};
            pages([&](int64_t place) {
                const int64_t i = first + place;
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

// Whether page `done` is expected so far below the k-th best of those before it that no later one is worth a look: by
// the line through their scores over what was promised of them, and `patience` times their deviation from it.
bool hopeless(const float *promise, const float *scores, int64_t done, int64_t k, double patience) {
    std::vector<float> best;
    double given = 0, got = 0, xx = 0, xy = 0, yy = 0;
    for (int64_t i = 0; i < done; i++)
        if (std::isfinite(scores[i])) best.push_back(scores[i]), given += promise[i], got += scores[i];
    const double n = static_cast<double>(best.size());
    if (n < static_cast<double>(k)) return false;
    given /= n, got /= n;
    for (int64_t i = 0; i < done; i++) {
        const double x = promise[i] - given, y = scores[i] - got;
        if (std::isfinite(scores[i])) xx += x * x, xy += x * y, yy += y * y;
    }
    if (xx <= 0) return false;
    std::nth_element(best.begin(), best.begin() + (k - 1), best.end(), std::greater<float>());
    const double deviation = std::sqrt(std::max(yy - xy * xy / xx, 0.0) / n);
    return got + xy / xx * (promise[done] - given) + patience * deviation < best[static_cast<size_t>(k - 1)];
}

// Places, rising, of the `most` largest of the sums; of equals the first. Sums are small: they are counted.
std::vector<int64_t> largest_sums(const uint32_t *sums, int64_t pages, int64_t most) {
    std::vector<int64_t> places, counts;
    uint32_t least = 0;
    int64_t level = pages;  // how many of those that equal `least` are taken
    if (most < pages) {
        counts.resize(*std::max_element(sums, sums + pages) + size_t{1});
        for (int64_t i = 0; i < pages; i++) counts[sums[i]]++;
        for (least = static_cast<uint32_t>(counts.size() - 1), level = most; counts[least] < level; least--)
            level -= counts[least];
    }
    for (int64_t i = 0; i < pages; i++)
        if (sums[i] > least || (sums[i] == least && level-- > 0)) places.push_back(i);
    return places;
}

// Mean 0 and deviation 1; zeros where they are all alike.
void standardise(std::vector<float> &values) {
    double sum = 0, square = 0;
    for (float value : values) sum += static_cast<double>(value);
    const double mean = sum / static_cast<double>(values.size());
    for (float value : values) square += (static_cast<double>(value) - mean) * (static_cast<double>(value) - mean);
    const double deviation = std::sqrt(square / static_cast<double>(values.size()));
    for (float &value : values)
        value = deviation > 1e-9 ? static_cast<float>((static_cast<double>(value) - mean) / deviation) : 0;
}

constexpr int64_t MOST_SUMS = 6;  // vectors of a vector of query tokens: halves times digits

struct PackMemory {
    Aligned<uint8_t> data;
    Aligned<int32_t> start;
    Aligned<float> factor;
    Pack pack;
    PackMemory(const Kernel &kernel, const Query &query, int32_t codec)
        : data(kernel.data_bytes(query)),
          start((query.tokens + 64) * MOST_SUMS),
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
OCTAVO_API int32_t octavo_version() { return 4; }

// Name of the index-th instruction set, best last; "" for one this processor lacks; null past the end.
OCTAVO_API const char *octavo_set(int32_t index) {
    if (index < 0 || index >= static_cast<int32_t>(sets().size())) return nullptr;
    return set_of(index) ? set_of(index)->name : "";
}

// values, scales: (pages) addresses; lengths: (pages) rows; scales and winners may be null. promise: null, or of one
// query: pages are scored `run` at a time until the rest are hopeless. scored: how many were.
OCTAVO_API int32_t octavo_maxsim(int32_t set, int32_t codec, int32_t precision, int32_t threads, const float *query,
                                 const int64_t *query_offsets, int64_t queries, int64_t dim, const uint64_t *values,
                                 const int64_t *lengths, const uint64_t *scales, int64_t pages, float *scores,
                                 int32_t *winners, const float *promise, int64_t k, int64_t run, double patience,
                                 int64_t *scored) {
    const Set *chosen = set_of(set);
    if (!chosen) return NO_SET;
    const Query tokens{query, query_offsets[queries], dim};
    const Kernel *kernel = chosen->kernel(codec, precision, tokens);
    if (!kernel) return NO_KERNEL;
    return guarded([&] {
        const Request request{tokens, query_offsets, queries, pages, scores, winners};
        PackMemory memory(*kernel, request.query, codec);
        int32_t failure = NONE;
        for (*scored = 0; *scored < pages && !failure;) {
            if (promise && *scored && hopeless(promise, scores, *scored, k, patience)) break;
            const int64_t first = *scored, last = promise ? std::min(first + run, pages) : pages;
            failure = score_pages(*kernel, memory.pack, request, threads, first, last, [&](int64_t i) {
                return Page{reinterpret_cast<const uint8_t *>(values[i]),
                            scales ? reinterpret_cast<const uint8_t *>(scales[i]) : nullptr,
                            lengths[i],
                            i + 1 < pages ? reinterpret_cast<const uint8_t *>(values[i + 1]) : nullptr};
            });
            *scored = last;
        }
        return failure;
    });
}

// rows, scales: those of the centroids, in the codec INT8; tables: (ceil(tokens / 32), centroids, 32).
OCTAVO_API int32_t octavo_tables(int32_t set, const float *query, int64_t tokens, int64_t dim, const uint8_t *rows,
                                 const uint8_t *scales, int64_t centroids, uint8_t *tables) {
    const Set *chosen = set_of(set);
    if (!chosen) return NO_SET;
    const Query asked{query, tokens, dim};
    const Kernel *kernel = chosen->kernel(INT8, INT8_QUERY, asked);
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

// sums: (pages) of a scan of `rows`, or where null of all; halves: a mean for every page. places: room for min(wanted,
// shortlist, pages), into sums, with their scores, best first.
OCTAVO_API int32_t octavo_select(int32_t set, int32_t threads, const uint32_t *sums, int64_t pages, const float *vector,
                                 int64_t dim, const uint8_t *halves, const int64_t *rows, int64_t shortlist,
                                 int64_t wanted, float weight, int64_t *places, float *scores) {
    const Set *chosen = set_of(set);
    if (!chosen) return NO_SET;
    return guarded([&]() -> int32_t {
        const std::vector<int64_t> some = largest_sums(sums, pages, shortlist);
        const int64_t count = static_cast<int64_t>(some.size());
        std::vector<float> found(some.size()), means(some.size());
        share(count, 1024, threads, [&](auto each) {
            each([&](int64_t i) {
                const auto row = [&](int64_t j) { return halves + (rows ? rows[some[j]] : some[j]) * 2 * dim; };
                if (i + 4 < count)
                    for (int64_t at = 0; at < 2 * dim; at += 64) __builtin_prefetch(row(i + 4) + at);
                found[i] = static_cast<float>(sums[some[i]]);
                means[i] = chosen->product(vector, row(i), dim);
            });
        });
        standardise(found), standardise(means);
        std::vector<std::pair<float, int64_t>> order(some.size());  // the best first
        for (int64_t i = 0; i < count; i++) order[i] = {-(found[i] + weight * means[i]), some[i]};
        const int64_t best = std::min(wanted, count);
        if (best < count) std::nth_element(order.begin(), order.begin() + best, order.end());
        std::sort(order.begin(), order.begin() + best);
        for (int64_t i = 0; i < best; i++) scores[i] = -order[i].first, places[i] = order[i].second;
        return NONE;
    });
}

// table: (centroids, 32); offsets: (n + 1) into the codes, of which there are `all`; rows: (pages) of the n to scan, or
// null for the first `pages`.
OCTAVO_API int32_t octavo_scan(int32_t set, int32_t threads, const uint8_t *table, int64_t centroids,
                               const uint16_t *codes, int64_t all, const int64_t *offsets, const int64_t *rows,
                               int64_t pages, uint32_t *sums) {
    const Set *chosen = set_of(set);
    if (!chosen) return NO_SET;
    std::atomic<bool> outside{false};
    return guarded([&]() -> int32_t {
        share(pages, 256, threads, [&](auto each) {
            each([&](int64_t i) {
                const int64_t row = rows ? rows[i] : i, count = offsets[row + 1] - offsets[row];
                const uint16_t *from = codes + offsets[row];
                const bool there = offsets[row] >= 0 && count >= 0 && offsets[row + 1] <= all;
                if (!there || (count && chosen->largest(from, count) >= centroids)) {
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
