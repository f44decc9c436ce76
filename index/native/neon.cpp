// The kernels for AArch64, all of which has NEON; byte products need its dot products (the compiler's -march) to be
// fast.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "native.h"

#define OCTAVO_LAMBDA __attribute__((always_inline))

namespace octavo {
namespace arm {

#include "common.h"

constexpr int LANES = 4, TILE_ROWS = 12;
constexpr int64_t CACHED = 1 << 17;
constexpr float BYTE_STEPS = 127;
constexpr bool SIGNED_BYTES = true;

struct Ints {
    int32x4_t v;
    static OCTAVO_INLINE Ints all(int32_t x) { return {vdupq_n_s32(x)}; }
    static OCTAVO_INLINE Ints load(const int32_t *from) { return {vld1q_s32(from)}; }
    OCTAVO_INLINE void store(int32_t *to) const { vst1q_s32(to, v); }
};
struct Floats {
    float32x4_t v;
    static OCTAVO_INLINE Floats all(float x) { return {vdupq_n_f32(x)}; }
    static OCTAVO_INLINE Floats load(const float *from) { return {vld1q_f32(from)}; }
    OCTAVO_INLINE void store(float *to) const { vst1q_f32(to, v); }
};
OCTAVO_INLINE Floats operator*(Floats a, Floats b) { return {vmulq_f32(a.v, b.v)}; }
OCTAVO_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
OCTAVO_INLINE Floats maximum(Floats a, Floats b) { return {vmaxq_f32(a.v, b.v)}; }
OCTAVO_INLINE Ints where_greater(Floats a, Floats b, Ints yes, Ints no) {
    return {vbslq_s32(vcgtq_f32(a.v, b.v), yes.v, no.v)};
}
OCTAVO_INLINE Floats to_floats(Ints a) { return {vcvtq_f32_s32(a.v)}; }
OCTAVO_INLINE Ints multiply_add_bytes(Ints sum, Ints x, Ints q) {
    const int8x16_t a = vreinterpretq_s8_s32(x.v), b = vreinterpretq_s8_s32(q.v);
#if defined(__ARM_FEATURE_DOTPROD)
    return {vdotq_s32(sum.v, a, b)};
#else
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return {vaddq_s32(sum.v, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)))};
#endif
}
template <int W>
OCTAVO_INLINE Floats spread_floats(const uint8_t *x) {
    return Floats::all(load_any<float>(x));
}
template <int W>
OCTAVO_INLINE Ints spread_ints(const uint8_t *x) {
    return Ints::all(load_any<int32_t>(x));
}
inline void zeros_and_twos(const uint8_t *, uint8_t *, int64_t) {}  // bytes are signed here
template <class T>
OCTAVO_INLINE T add_pairs(T a, T) {
    return a;
}  // no kernel here is of pairs
inline void halves(const uint8_t *from, float *to, int64_t count) {
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) vst1q_f32(to + i, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(from + 2 * i))));
    for (int64_t rest = count % 4; rest > 0; rest--, i++)
        to[i] = vgetq_lane_f32(vcvt_f32_f16(vdup_n_f16(load_any<__fp16>(from + 2 * i))), 0);
}

#include "tile.h"
#include "page.h"
#include "bits.h"

uint16_t largest(const uint16_t *codes, int64_t count) {
    uint16_t found = 0;
    for (int64_t i = 0; i < count; i++) found = codes[i] > found ? codes[i] : found;
    return found;
}

uint32_t scan(const uint8_t *table, const uint16_t *codes, int64_t count) {
    uint8x16_t low = vdupq_n_u8(0), high = vdupq_n_u8(0);
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *row = table + 32 * static_cast<int64_t>(load_any<uint16_t>(codes + i));
        low = vmaxq_u8(low, vld1q_u8(row)), high = vmaxq_u8(high, vld1q_u8(row + 16));
    }
    return static_cast<uint32_t>(vaddlvq_u8(low)) + vaddlvq_u8(high);
}

const Kernel *kernel(int32_t codec, int32_t precision, const Query &) {
    if (precision == FLOAT_QUERY) return &kernel_of<FloatProduct<1>>;
    if (precision == BINARY_QUERY) return codec == BINARY ? &hamming : nullptr;
    return codec == INT8 || codec == INT4 ? &kernel_of<ByteProduct<1, 1>> : nullptr;
}

}  // namespace arm

const Set neon{"neon", arm::kernel, arm::largest, arm::scan, arm::tables_of, arm::product_of};

}  // namespace octavo
#endif
