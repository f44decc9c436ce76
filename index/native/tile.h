// The kernels themselves, written once over the vector types of an instruction set, whose file includes this inside its
// own namespace (and target) after it has defined LANES, TILE_ROWS, SIGNED_BYTES, Floats, Ints and their operations.
//
// A tile of R page rows x C columns of query tokens lives in registers; a page is one tile after another, and only the
// running maximum of each query token is kept. Rows of a page that are not floats (or bytes, for integer products) are
// first rewritten, a tile at a time, into a buffer that stays in the first-level cache. While a tile is computed the
// rows of the next one are prefetched. Nothing outside of a page's rows is read.

// ---- rows of each codec, rewritten ----------------------------------------------------------------------------------

// D: dim where it is known when this is compiled, else 0.
template <int D>
void floats_of(int32_t codec, const uint8_t *from, float *to, int64_t any) {
    const int64_t dim = D ? D : any;
    if (codec == FP16) {
        halves(from, to, dim);
    } else if (codec == INT8) {
        const int8_t *row = reinterpret_cast<const int8_t *>(from);
        for (int64_t k = 0; k < dim; k++) to[k] = row[k];
    } else if (codec == INT4) {
        for (int64_t k = 0; k < dim / 2; k++) {
            to[k] = static_cast<float>(static_cast<int>(from[k] & 15) - 8);
            to[k + dim / 2] = static_cast<float>(static_cast<int>(from[k] >> 4) - 8);
        }
    } else {
        for (int64_t k = 0; k < dim / 8; k++)
            for (int b = 0; b < 8; b++) to[8 * k + b] = static_cast<float>((from[k] >> b & 1) * 2 - 1);
    }
}

// Bytes for products: unsigned, `bias_of` above the value they stand for, or where SIGNED_BYTES that value.
inline int32_t bias_of(int32_t codec) { return SIGNED_BYTES ? 0 : codec == INT8 ? 128 : codec == INT4 ? 8 : 1; }

template <int D>
void bytes_of(int32_t codec, const uint8_t *from, uint8_t *to, int64_t any) {
    const int64_t dim = D ? D : any;
    if (codec == INT8) {
        for (int64_t k = 0; k < dim; k++) to[k] = SIGNED_BYTES ? from[k] : from[k] ^ 0x80;
    } else if (codec == INT4) {
        for (int64_t k = 0; k < dim / 2; k++) {
            to[k] = static_cast<uint8_t>((from[k] & 15) - (SIGNED_BYTES ? 8 : 0));
            to[k + dim / 2] = static_cast<uint8_t>((from[k] >> 4) - (SIGNED_BYTES ? 8 : 0));
        }
    } else if (SIGNED_BYTES) {
        for (int64_t k = 0; k < dim; k++) to[k] = from[k / 8] >> k % 8 & 1 ? 1 : 0xff;
    } else {
        zeros_and_twos(from, to, dim);
    }
}

inline int64_t row_bytes(int32_t codec, int64_t dim) {
    return codec == FP32 ? 4 * dim : codec == FP16 ? 2 * dim : codec == INT8 ? dim : codec == INT4 ? dim / 2 : dim / 8;
}

// ---- products -------------------------------------------------------------------------------------------------------
//
// A group is 4 bytes of a row: one float, or four bytes. A unit is W groups, one broadcast; with W = 2 a vector holds
// half as many query tokens, two sums of each, which halves the loads where there are few of them. Query tokens are in
// D digits. So LANES tokens take W x D vectors of sums; a tile has a multiple of STEP of them.

constexpr float BASE = 254;

template <int W>
struct FloatProduct {
    static constexpr int WIDE = W, DIGITS = 1, SUMS = W, STEP = W, PER_GROUP = 1, COLUMNS = W == 1 ? 2 : 1;
    using Sum = Floats;
    static OCTAVO_INLINE Sum begin(const int32_t *) { return Floats::all(0); }
    static OCTAVO_INLINE Floats spread(const uint8_t *x) { return spread_floats<W>(x); }
    static OCTAVO_INLINE Floats query(const uint8_t *q) { return Floats::load(reinterpret_cast<const float *>(q)); }
    static OCTAVO_INLINE Sum add(Sum sum, Floats x, Floats q) { return multiply_add(x, q, sum); }
    template <int N>
    static OCTAVO_INLINE Floats value(const Sum *sum) {
        if constexpr (W == 2) return add_pairs(sum[0], sum[1]);
        return sum[0];
    }
};

// One digit is 8-bit precision of the query; three are as good as a float.
template <int D, int W>
struct ByteProduct {
    static constexpr int WIDE = W, DIGITS = D, SUMS = W * D, STEP = D, PER_GROUP = 4, COLUMNS = D == 1 ? 2 : 1;
    using Sum = Ints;
    static OCTAVO_INLINE Sum begin(const int32_t *start) { return Ints::load(start); }
    static OCTAVO_INLINE Ints spread(const uint8_t *x) { return spread_ints<W>(x); }
    static OCTAVO_INLINE Ints query(const uint8_t *q) { return Ints::load(reinterpret_cast<const int32_t *>(q)); }
    static OCTAVO_INLINE Sum add(Sum sum, Ints x, Ints q) { return multiply_add_bytes(sum, x, q); }
    template <int N>
    static OCTAVO_INLINE Floats value(const Sum *sum) {
        const auto digit = [sum](int i) OCTAVO_LAMBDA {  // where there is one half, the other is not looked at
            return to_floats(W == 2 ? add_pairs(sum[i], sum[N - D + i]) : sum[i]);
        };
        Floats value = digit(0);
        for (int i = 1; i < D; i++) value = multiply_add(value, Floats::all(BASE), digit(i));
        return value;
    }
};

// ---- one tile -------------------------------------------------------------------------------------------------------

struct Tile {
    const uint8_t *rows;  // R rows, `stride` bytes apart
    int64_t stride, units;
    const uint8_t *query;  // one block, packed
    const int32_t *start;
    const float *scales;  // R
    float *best;
    float *values;  // null, or where to leave R x V x LANES similarities instead of taking their maximum
    const uint8_t *ahead;
    int64_t step;  // bytes of `ahead` to fetch for UNROLL units
};

constexpr int UNROLL = 2;

// C: vectors of sums. S: stride of the rows in bytes where it is known when this is compiled, else 0.
template <class P, int R, int C, int S>
void tile(const Tile &t) {
    constexpr int V = (C + P::SUMS - 1) / P::SUMS, U = 4 * P::WIDE;  // vectors of query tokens, bytes of a unit
    typename P::Sum sums[R][C];
    repeat<C>([&](auto c) OCTAVO_LAMBDA {
        auto from = P::begin(t.start + c * LANES);
        repeat<R>([&](auto r) OCTAVO_LAMBDA { sums[r][c] = from; });
    });
    const int64_t stride = S ? S : t.stride;
    const uint8_t *q = t.query, *ahead = t.ahead;
    const uint8_t *x[(R + 2) / 3];  // every third row: the others are reached by an index of one or two strides
    repeat<(R + 2) / 3>([&](auto g) OCTAVO_LAMBDA { x[g] = t.rows + (S ? 0 : g * 3 * stride); });
    const auto unit = [&](auto u) OCTAVO_LAMBDA {
        decltype(P::query(q)) columns[C];
        repeat<C>([&](auto c) OCTAVO_LAMBDA { columns[c] = P::query(q + (u * C + c) * LANES * 4); });
        repeat<R>([&](auto r) OCTAVO_LAMBDA {
            const auto spread = P::spread(S ? x[0] + r * S + u * U : x[r / 3] + (r % 3) * stride + u * U);
            repeat<C>([&](auto c) OCTAVO_LAMBDA { sums[r][c] = P::add(sums[r][c], spread, columns[c]); });
        });
    };
    const auto advance = [&](int units) OCTAVO_LAMBDA {
        q += units * C * LANES * 4;
        repeat<S ? 1 : (R + 2) / 3>([&](auto g) OCTAVO_LAMBDA { x[g] += units * U; });
    };
    int64_t left = S ? S / U : t.units;
    for (; left >= UNROLL; left -= UNROLL) {
        for (int64_t fetched = 0; fetched < t.step; fetched += 64) __builtin_prefetch(ahead + fetched);
        ahead += t.step;
        repeat<UNROLL>(unit);
        advance(UNROLL);
    }
    for (; left > 0; left--) {
        unit(std::integral_constant<int, 0>{});
        advance(1);
    }
    repeat<V>([&](auto v) OCTAVO_LAMBDA {
        Floats best = Floats::load(t.best + v * LANES);
        repeat<R>([&](auto r) OCTAVO_LAMBDA {
            constexpr int left = C - v * P::SUMS, N = left < P::SUMS ? left : P::SUMS;
            const Floats value = P::template value<N>(&sums[r][v * P::SUMS]) * Floats::all(t.scales[r]);
            if (t.values) value.store(t.values + (r * V + v) * LANES);
            best = maximum(value, best);
        });
        if (!t.values) best.store(t.best + v * LANES);
    });
}
