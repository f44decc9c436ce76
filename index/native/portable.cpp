// The kernels in plain C++, for any processor; also what the special ones fall back on.
#include <cmath>
#include <cstring>
#include <utility>

#include "native.h"

#define OCTAVO_LAMBDA __attribute__((always_inline))

namespace octavo {
namespace plain {

#include "common.h"

constexpr int LANES = 4, TILE_ROWS = 4;
constexpr int64_t CACHED = 1 << 17;
constexpr float BYTE_STEPS = 127;
constexpr bool SIGNED_BYTES = false;

struct Floats {
    float lane[LANES];
    static OCTAVO_INLINE Floats all(float x) { return {x, x, x, x}; }
    static OCTAVO_INLINE Floats zero() { return all(0); }
    static OCTAVO_INLINE Floats load(const float *from) { return {from[0], from[1], from[2], from[3]}; }
    OCTAVO_INLINE void store(float *to) const { memcpy(to, lane, sizeof lane); }
};
struct Ints {
    int32_t lane[LANES];
    static OCTAVO_INLINE Ints all(int32_t x) { return {x, x, x, x}; }
    static OCTAVO_INLINE Ints load(const int32_t *from) { return {from[0], from[1], from[2], from[3]}; }
    OCTAVO_INLINE void store(int32_t *to) const { memcpy(to, lane, sizeof lane); }
};
OCTAVO_INLINE Floats operator*(Floats a, Floats b) {
    for (int i = 0; i < LANES; i++) a.lane[i] *= b.lane[i];
    return a;
}
OCTAVO_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
    for (int i = 0; i < LANES; i++) c.lane[i] += a.lane[i] * b.lane[i];
    return c;
}
OCTAVO_INLINE Floats maximum(Floats a, Floats b) {
    for (int i = 0; i < LANES; i++) a.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
}
OCTAVO_INLINE Ints where_greater(Floats a, Floats b, Ints yes, Ints no) {
    for (int i = 0; i < LANES; i++) no.lane[i] = a.lane[i] > b.lane[i] ? yes.lane[i] : no.lane[i];
    return no;
}
OCTAVO_INLINE Floats to_floats(Ints a) {
    Floats to{};
    for (int i = 0; i < LANES; i++) to.lane[i] = static_cast<float>(a.lane[i]);
    return to;
}
// Unsigned bytes of x times signed bytes of q, the four products of a lane added to its sum.
OCTAVO_INLINE Ints multiply_add_bytes(Ints sum, Ints x, Ints q) {
    uint8_t a[4 * LANES];
    int8_t b[4 * LANES];
    memcpy(a, x.lane, sizeof a);
    memcpy(b, q.lane, sizeof b);
    for (int i = 0; i < 4 * LANES; i++) sum.lane[i / 4] += a[i] * b[i];
    return sum;
}

template <int W>
OCTAVO_INLINE Floats spread_floats(const uint8_t *x) {
    return Floats::all(load_any<float>(x));
}
template <int W>
OCTAVO_INLINE Ints spread_ints(const uint8_t *x) {
    return Ints::all(load_any<int32_t>(x));
}
template <class T>
OCTAVO_INLINE T add_pairs(T a, T) {
    return a;
}  // no kernel here is of pairs
inline void zeros_and_twos(const uint8_t *from, uint8_t *to, int64_t bits) {
    for (int64_t k = 0; k < bits; k++) to[k] = static_cast<uint8_t>((from[k / 8] >> k % 8 & 1) * 2);
}
inline float half(uint16_t bits) {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, exponent = bits >> 10 & 31,
                   mantissa = bits & 0x3ff;
    uint32_t whole;
    if (exponent == 0) {
        const float value = static_cast<float>(mantissa) * 0x1p-24f;
        return sign ? -value : value;
    }
    whole = sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | mantissa << 13;
    float value;
    memcpy(&value, &whole, 4);
    return value;
}
inline void halves(const uint8_t *from, float *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, 2);
        to[i] = half(bits);
    }
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
    uint8_t best[32] = {};
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *row = table + 32 * load_any<uint16_t>(codes + i);
        for (int j = 0; j < 32; j++) best[j] = best[j] > row[j] ? best[j] : row[j];
    }
    uint32_t sum = 0;
    for (int j = 0; j < 32; j++) sum += best[j];
    return sum;
}

const Kernel *kernel(int32_t codec, int32_t precision, const Query &) {
    if (precision == FLOAT_QUERY) return &kernel_of<FloatProduct<1>>;
    if (precision == BINARY_QUERY) return codec == BINARY ? &hamming : nullptr;
    return codec == INT8 || codec == INT4 ? &kernel_of<ByteProduct<1, 1>> : nullptr;
}

}  // namespace plain

const Set portable{"portable", plain::kernel, plain::largest, plain::scan, plain::tables_of, plain::product_of};

}  // namespace octavo
