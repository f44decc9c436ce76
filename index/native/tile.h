// The kernels themselves, written once over the vector types of an instruction set, whose file includes this inside its
// own namespace (and target) after it has defined: LANES, Floats, Ints and their operations, `Whole`, `TILE_ROWS`.
//
// A tile of R page rows x C columns of query tokens lives in registers; a page is one tile after another, and only the
// running maximum of each query token is kept. Rows of a page that are not floats (or bytes, for integer products) are
// first rewritten, a tile at a time, into a buffer that stays in the first-level cache. While a tile is computed the
// rows of the next one are prefetched. Nothing outside of a page's rows is read.

template <class F, int... I> OCTAVO_INLINE void each(F &f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F> OCTAVO_INLINE void repeat(F f) { each(f, std::make_integer_sequence<int, N>{}); }

template <class T> OCTAVO_INLINE T load_any(const void *from) {
    T value;
    memcpy(&value, from, sizeof value);
    return value;
}

// ---- rows of each codec, rewritten ----------------------------------------------------------------------------------

inline void floats_of(int32_t codec, const uint8_t *from, float *to, int64_t dim) {
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

// Unsigned bytes, `bias` above the value they stand for.
inline void bytes_of(int32_t codec, const uint8_t *from, uint8_t *to, int64_t dim) {
    if (codec == INT8) {
        for (int64_t k = 0; k < dim; k++) to[k] = from[k] ^ 0x80;
    } else if (codec == INT4) {
        for (int64_t k = 0; k < dim / 2; k++) {
            to[k] = from[k] & 15;
            to[k + dim / 2] = from[k] >> 4;
        }
    } else {
        for (int64_t k = 0; k < dim / 8; k++)
            for (int b = 0; b < 8; b++) to[8 * k + b] = static_cast<uint8_t>((from[k] >> b & 1) * 2);
    }
}

inline int32_t bias_of(int32_t codec) { return codec == INT8 ? 128 : codec == INT4 ? 8 : 1; }

inline int64_t row_bytes(int32_t codec, int64_t dim) {
    return codec == FP32 ? 4 * dim : codec == FP16 ? 2 * dim : codec == INT8 ? dim : codec == INT4 ? dim / 2 : dim / 8;
}

// ---- a product of one unit (4 bytes of a row: one float, or four bytes) with a column of query tokens ---------------

struct FloatProduct {
    static constexpr int DIGITS = 1;
    static constexpr int COLUMNS = 2;  // vectors of query tokens in a block
    static constexpr int PER_UNIT = 1;
    using Sum = Floats;
    static OCTAVO_INLINE Sum begin(const int32_t *) { return Floats::zero(); }
    static OCTAVO_INLINE Floats spread(const uint8_t *x) { return Floats::all(load_any<float>(x)); }
    static OCTAVO_INLINE Floats query(const uint8_t *q) { return Floats::load(reinterpret_cast<const float *>(q)); }
    static OCTAVO_INLINE Sum add(Sum sum, Floats x, Floats q) { return multiply_add(x, q, sum); }
    static OCTAVO_INLINE Floats value(const Sum *sum) { return sum[0]; }
};

// Query tokens as D digits: one is 8-bit precision; three are as good as a float.
constexpr float BASE = 254;
template <int D> struct ByteProduct {
    static constexpr int DIGITS = D;
    static constexpr int COLUMNS = D == 1 ? 2 : 1;
    static constexpr int PER_UNIT = 4;
    using Sum = Ints;
    static OCTAVO_INLINE Sum begin(const int32_t *start) { return Ints::load(start); }
    static OCTAVO_INLINE Ints spread(const uint8_t *x) { return Ints::all(load_any<int32_t>(x)); }
    static OCTAVO_INLINE Ints query(const uint8_t *q) { return Ints::load(reinterpret_cast<const int32_t *>(q)); }
    static OCTAVO_INLINE Sum add(Sum sum, Ints x, Ints q) { return multiply_add_bytes(sum, x, q); }
    static OCTAVO_INLINE Floats value(const Sum *sum) {
        Floats value = to_floats(sum[0]);
        for (int i = 1; i < D; i++) value = multiply_add(value, Floats::all(BASE), to_floats(sum[i]));
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
    float *values;         // null, or where to leave R x V x LANES similarities instead of taking their maximum
    const uint8_t *ahead;
    int64_t step;  // bytes of `ahead` to fetch for UNROLL units
};

constexpr int UNROLL = 2;

// S: stride of the rows in bytes where it is known when this is compiled, else 0.
template <class P, int R, int V, int S> void tile(const Tile &t) {
    constexpr int C = V * P::DIGITS;
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
            const auto spread = P::spread(S ? x[0] + r * S + u * 4 : x[r / 3] + (r % 3) * stride + u * 4);
            repeat<C>([&](auto c) OCTAVO_LAMBDA { sums[r][c] = P::add(sums[r][c], spread, columns[c]); });
        });
    };
    const auto advance = [&](int units) OCTAVO_LAMBDA {
        q += units * C * LANES * 4;
        repeat<S ? 1 : (R + 2) / 3>([&](auto g) OCTAVO_LAMBDA { x[g] += units * 4; });
    };
    int64_t left = S ? S / 4 : t.units;
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
            const Floats value = P::value(&sums[r][v * P::DIGITS]) * Floats::all(t.scales[r]);
            if (t.values) value.store(t.values + (r * V + v) * LANES);
            best = maximum(value, best);
        });
        if (!t.values) best.store(t.best + v * LANES);
    });
}
