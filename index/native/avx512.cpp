// The kernels for x86-64 with AVX-512 and its byte products, permutations and bit counts (Intel since Ice Lake, AMD since
// Zen 4).
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "native.h"

#define OCTAVO_LAMBDA __attribute__((always_inline))
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512vpopcntdq"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512vpopcntdq")
#endif

namespace octavo {
namespace icelake {

constexpr int LANES = 16, TILE_ROWS = 14;
constexpr int64_t CACHED = 1 << 18;
constexpr float BYTE_STEPS = 127;

struct Ints {
    __m512i v;
    static OCTAVO_INLINE Ints all(int32_t x) { return {_mm512_set1_epi32(x)}; }
    static OCTAVO_INLINE Ints load(const int32_t *from) { return {_mm512_loadu_si512(from)}; }
    OCTAVO_INLINE void store(int32_t *to) const { _mm512_storeu_si512(to, v); }
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
    return {_mm512_mask_mov_epi32(no.v, _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), yes.v)};
}
OCTAVO_INLINE Floats to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
OCTAVO_INLINE Ints multiply_add_bytes(Ints sum, Ints x, Ints q) { return {_mm512_dpbusd_epi32(sum.v, x.v, q.v)}; }
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

const Kernel *kernel(int32_t codec, int32_t precision) {
    if (precision == FLOAT_QUERY)
        return codec == FP32 || codec == FP16 ? &kernel_of<FloatProduct> : &kernel_of<ByteProduct<3>>;
    if (precision == BINARY_QUERY) return codec == BINARY ? &hamming : nullptr;
    return codec == INT8 || codec == INT4 ? &kernel_of<ByteProduct<1>> : nullptr;
}

}  // namespace icelake

const Set avx512{"avx512", icelake::kernel, &icelake::kernel_of<icelake::ByteProduct<1>>, avx2.scan};

}  // namespace octavo
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
