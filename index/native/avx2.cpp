// The kernels for x86-64 with AVX2, FMA, F16C and POPCNT (Intel since Haswell, AMD since Excavator).
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "native.h"

#define OCTAVO_LAMBDA __attribute__((always_inline))
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,popcnt")
#endif

namespace octavo {
namespace haswell {

#include "common.h"

constexpr int LANES = 8, TILE_ROWS = 6;
constexpr int64_t CACHED = 1 << 17;
constexpr float BYTE_STEPS = 63;  // two products of an unsigned byte with it fit 16 bits
constexpr bool SIGNED_BYTES = false;

struct Ints {
    typedef int Vector __attribute__((vector_size(32)));
    Vector v;
    static OCTAVO_INLINE Ints of(__m256i x) { return {(Vector)x}; }
    static OCTAVO_INLINE Ints all(int32_t x) { return of(_mm256_set1_epi32(x)); }
    static OCTAVO_INLINE Ints load(const int32_t *from) {
        return of(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
    }
    OCTAVO_INLINE void store(int32_t *to) const { _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), whole()); }
    OCTAVO_INLINE __m256i whole() const { return (__m256i)v; }
};
struct Floats {
    __m256 v;
    static OCTAVO_INLINE Floats all(float x) { return {_mm256_set1_ps(x)}; }
    static OCTAVO_INLINE Floats zero() { return {_mm256_setzero_ps()}; }
    static OCTAVO_INLINE Floats load(const float *from) { return {_mm256_loadu_ps(from)}; }
    OCTAVO_INLINE void store(float *to) const { _mm256_storeu_ps(to, v); }
};
OCTAVO_INLINE Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v)}; }
OCTAVO_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
OCTAVO_INLINE Floats maximum(Floats a, Floats b) { return {_mm256_max_ps(a.v, b.v)}; }
OCTAVO_INLINE Ints where_greater(Floats a, Floats b, Ints yes, Ints no) {
    const __m256 greater = _mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ);
    return Ints::of(_mm256_blendv_epi8(no.whole(), yes.whole(), _mm256_castps_si256(greater)));
}
OCTAVO_INLINE Floats to_floats(Ints a) { return {_mm256_cvtepi32_ps(a.whole())}; }
OCTAVO_INLINE Ints multiply_add_bytes(Ints sum, Ints x, Ints q) {
    const __m256i pairs = _mm256_maddubs_epi16(x.whole(), q.whole());
    return Ints::of(_mm256_add_epi32(sum.whole(), _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}
template <int W>
OCTAVO_INLINE Floats spread_floats(const uint8_t *x) {
    if constexpr (W == 2) return {_mm256_castpd_ps(_mm256_set1_pd(load_any<double>(x)))};
    return Floats::all(load_any<float>(x));
}
template <int W>
OCTAVO_INLINE Ints spread_ints(const uint8_t *x) {
    if constexpr (W == 2) return Ints::of(_mm256_set1_epi64x(load_any<int64_t>(x)));
    return Ints::all(load_any<int32_t>(x));
}
// Sums of neighbouring lanes, those of a first.
OCTAVO_INLINE Floats add_pairs(Floats a, Floats b) {
    const __m256d sums = _mm256_castps_pd(_mm256_hadd_ps(a.v, b.v));
    return {_mm256_castpd_ps(_mm256_permute4x64_pd(sums, 0b11011000))};
}
OCTAVO_INLINE Ints add_pairs(Ints a, Ints b) {
    return Ints::of(_mm256_permute4x64_epi64(_mm256_hadd_epi32(a.whole(), b.whole()), 0b11011000));
}
// A byte for each bit: 2 where it is set.
inline void zeros_and_twos(const uint8_t *from, uint8_t *to, int64_t bits) {
    const __m256i spread = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i each_bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
    int64_t k = 0;
    for (; k + 32 <= bits; k += 32) {
        const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(load_any<int32_t>(from + k / 8)), spread);
        const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, each_bit), each_bit);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + k), _mm256_and_si256(set, _mm256_set1_epi8(2)));
    }
    for (; k < bits; k += 8) {
        const __m128i bit = _mm256_castsi256_si128(each_bit), byte = _mm_set1_epi8(static_cast<char>(from[k / 8]));
        const __m128i set = _mm_cmpeq_epi8(_mm_and_si128(byte, bit), bit);
        _mm_storel_epi64(reinterpret_cast<__m128i *>(to + k), _mm_and_si128(set, _mm_set1_epi8(2)));
    }
}
inline void halves(const uint8_t *from, float *to, int64_t count) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from + 2 * i))));
    for (int64_t rest = count % 8; rest > 0; rest--, i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, 2);
        to[i] = _cvtsh_ss(bits);
    }
}

#include "tile.h"
#include "page.h"
#include "bits.h"
#include "signs256.h"

uint16_t largest(const uint16_t *codes, int64_t count) {
    __m256i most[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    const auto take = [&](int which, int64_t i) OCTAVO_LAMBDA {
        const __m256i some = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(codes + i));
        most[which] = _mm256_max_epu16(most[which], some);
    };
    int64_t i = 0;
    for (; i + 32 <= count; i += 32) take(0, i), take(1, i + 16);
    if (i + 16 <= count) take(0, i), i += 16;
    if (i < count && count >= 16) take(1, count - 16), i = count;
    const __m256i both = _mm256_max_epu16(most[0], most[1]);
    const __m128i one = _mm_max_epu16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    // the least of the complements, of which the processor finds the position too
    uint16_t found =
        static_cast<uint16_t>(~_mm_extract_epi16(_mm_minpos_epu16(_mm_xor_si128(one, _mm_set1_epi16(-1))), 0));
    for (; i < count; i++) found = codes[i] > found ? codes[i] : found;
    return found;
}

uint32_t scan(const uint8_t *table, const uint16_t *codes, int64_t count) {
    const auto row = [&](int64_t i) OCTAVO_LAMBDA {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(table + 32 * load_any<uint16_t>(codes + i)));
    };
    __m256i best[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        repeat<8>([&](auto j) OCTAVO_LAMBDA { best[j % 4] = _mm256_max_epu8(best[j % 4], row(i + j)); });
    for (; i < count; i++) best[0] = _mm256_max_epu8(best[0], row(i));
    best[0] = _mm256_max_epu8(_mm256_max_epu8(best[0], best[1]), _mm256_max_epu8(best[2], best[3]));
    const __m256i sums = _mm256_sad_epu8(best[0], _mm256_setzero_si256());
    const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return static_cast<uint32_t>(_mm_cvtsi128_si64(two) + _mm_extract_epi64(two, 1));
}

const Kernel *kernel(int32_t codec, int32_t precision, const Query &query) {
    const bool narrow = padded(query.tokens) == LANES && query.dim % 2 == 0;
    if (precision == FLOAT_QUERY && codec == BINARY && query.dim <= MOST_SIGNS) return &sign_tables;
    if (precision == FLOAT_QUERY) return narrow ? &kernel_of<FloatProduct<2>> : &kernel_of<FloatProduct<1>>;
    if (precision == BINARY_QUERY) return codec != BINARY ? nullptr : query.dim <= MOST_SIGNS ? &sign_counts : &hamming;
    return codec == INT8 || codec == INT4 ? &kernel_of<ByteProduct<1, 1>> : nullptr;
}

}  // namespace haswell

const Set avx2{"avx2", haswell::kernel, haswell::largest, haswell::scan, haswell::tables_of,
               haswell::product_of};

}  // namespace octavo
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
