// The kernels for x86-64 with AVX-512 and its byte products, permutations and bit counts (Intel since Ice Lake, AMD
// since Zen 4).
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "native.h"

#define OCTAVO_LAMBDA __attribute__((always_inline))
#if defined(__clang__)
#pragma clang attribute push(                                                                                      \
    __attribute__((                                                                                                \
        target("avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512vpopcntdq"))), \
    apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512vpopcntdq")
#endif

namespace octavo {
namespace icelake {

#include "common.h"

constexpr int LANES = 16, TILE_ROWS = 14;
constexpr int64_t CACHED = 1 << 18;
constexpr float BYTE_STEPS = 127;
constexpr bool SIGNED_BYTES = false;

// Declared as what its products give: a type that had to be cast at every step costs GCC its register allocation.
struct Ints {
    typedef int Vector __attribute__((vector_size(64)));
    Vector v;
    static OCTAVO_INLINE Ints of(__m512i x) { return {(Vector)x}; }
    static OCTAVO_INLINE Ints all(int32_t x) { return of(_mm512_set1_epi32(x)); }
    static OCTAVO_INLINE Ints load(const int32_t *from) { return of(_mm512_loadu_si512(from)); }
    OCTAVO_INLINE void store(int32_t *to) const { _mm512_storeu_si512(to, whole()); }
    OCTAVO_INLINE __m512i whole() const { return (__m512i)v; }
};
struct Floats {
    __m512 v;
    static OCTAVO_INLINE Floats all(float x) { return {_mm512_set1_ps(x)}; }
    static OCTAVO_INLINE Floats zero() { return {_mm512_setzero_ps()}; }
    static OCTAVO_INLINE Floats load(const float *from) { return {_mm512_loadu_ps(from)}; }
    OCTAVO_INLINE void store(float *to) const { _mm512_storeu_ps(to, v); }
};
OCTAVO_INLINE Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
OCTAVO_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
OCTAVO_INLINE Floats maximum(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
OCTAVO_INLINE Ints where_greater(Floats a, Floats b, Ints yes, Ints no) {
    return Ints::of(_mm512_mask_mov_epi32(no.whole(), _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), yes.whole()));
}
OCTAVO_INLINE Floats to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.whole())}; }
OCTAVO_INLINE Ints multiply_add_bytes(Ints sum, Ints x, Ints q) {
    return Ints::of(_mm512_dpbusd_epi32(sum.whole(), x.whole(), q.whole()));
}
template <int W>
OCTAVO_INLINE Floats spread_floats(const uint8_t *x) {
    if constexpr (W == 2) return {_mm512_castpd_ps(_mm512_set1_pd(load_any<double>(x)))};
    return Floats::all(load_any<float>(x));
}
template <int W>
OCTAVO_INLINE Ints spread_ints(const uint8_t *x) {
    if constexpr (W == 2) return Ints::of(_mm512_set1_epi64(load_any<int64_t>(x)));
    return Ints::all(load_any<int32_t>(x));
}
// Sums of neighbouring lanes, those of a first.
OCTAVO_INLINE __m512i lanes_from(int first) {
    return _mm512_add_epi32(
        _mm512_set1_epi32(first),
        _mm512_slli_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), 1));
}
OCTAVO_INLINE Floats add_pairs(Floats a, Floats b) {
    return {_mm512_add_ps(_mm512_permutex2var_ps(a.v, lanes_from(0), b.v),
                          _mm512_permutex2var_ps(a.v, lanes_from(1), b.v))};
}
OCTAVO_INLINE Ints add_pairs(Ints a, Ints b) {
    return Ints::of(_mm512_add_epi32(_mm512_permutex2var_epi32(a.whole(), lanes_from(0), b.whole()),
                                     _mm512_permutex2var_epi32(a.whole(), lanes_from(1), b.whole())));
}
// A byte for each bit: 2 where it is set.
inline void zeros_and_twos(const uint8_t *from, uint8_t *to, int64_t bits) {
    int64_t k = 0;
    for (; k + 64 <= bits; k += 64)
        _mm512_storeu_si512(to + k, _mm512_maskz_set1_epi8(load_any<uint64_t>(from + k / 8), 2));
    for (; k < bits; k += 8) _mm_storel_epi64(reinterpret_cast<__m128i *>(to + k), _mm_maskz_set1_epi8(from[k / 8], 2));
}
inline void halves(const uint8_t *from, float *to, int64_t count) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from + 2 * i))));
    if (i < count) {
        const __mmask16 mask = static_cast<__mmask16>((1u << (count - i)) - 1);
        _mm512_mask_storeu_ps(to + i, mask, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from + 2 * i)));
    }
}

#include "tile.h"
#include "page.h"
#include "bits.h"
#include "signs512.h"

// Few query tokens are better split in two. (A broadcast of two floats must not reach past a row.)
const Kernel *kernel(int32_t codec, int32_t precision, const Query &query) {
    const bool narrow = padded(query.tokens) == LANES, few = query.tokens <= LANES * 3 / 2;
    const bool half = few && (query.tokens - 1) % LANES < LANES / 2;  // of the last vector would be left empty
    if (precision == BINARY_QUERY) return codec == BINARY ? &sign_counts : nullptr;
    if (precision == INT8_QUERY) {
        if (codec != INT8 && codec != INT4) return nullptr;
        return few ? &kernel_of<ByteProduct<1, 2>> : &kernel_of<ByteProduct<1, 1>>;
    }
    if (codec == BINARY) return &sign_tables;
    if (codec != FP32 && codec != FP16) return half ? &kernel_of<ByteProduct<3, 2>> : &kernel_of<ByteProduct<3, 1>>;
    return narrow && query.dim % 2 == 0 ? &kernel_of<FloatProduct<2>> : &kernel_of<FloatProduct<1>>;
}

}  // namespace icelake

const Set avx512{"avx512", icelake::kernel, avx2.largest, avx2.scan, icelake::tables_of, icelake::product_of};

}  // namespace octavo
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
