// A page as tiles, and the query packed for them. Included after tile.h, in each instruction set's namespace.

// The numbers of rows that a tile of C columns is compiled for. Others are made of these, some rows counted twice, which
// a maximum does not mind.
template <int C> constexpr int most_rows = 2 * TILE_ROWS / C / 2 * 2;
constexpr int smaller(int rows) { return rows <= 2 ? rows - 1 : rows <= 16 ? rows - 2 : rows - 4; }

template <class P, int V> OCTAVO_INLINE int fitting(int64_t rows, int64_t room) {
    constexpr int C = V * P::DIGITS;
    int fit = most_rows<C>;
    while (smaller(fit) >= rows) fit = smaller(fit);
    while (fit > room) fit = smaller(fit);
    return fit;
}

template <class P, int V, int S, int R> void run(int rows, const Tile &t) {
    if constexpr (R >= 1) {
        if (rows == R) return tile<P, R, V, S>(t);
        run<P, V, S, smaller(R)>(rows, t);
    }
}

// The rest of a tile whose similarities were left in t.values: residuals are added to the centroids', winners kept.
inline void finish(const Tile &t, int rows, int columns, const float *factor, const float *const *centroids,
                   int32_t first, int32_t *where) {
    for (int c = 0; c < columns; c += LANES) {
        Floats best = Floats::load(t.best + c);
        Ints winner = Ints::load(where + c);
        const Floats unit = Floats::load(factor + c);
        for (int r = 0; r < rows; r++) {
            Floats value = Floats::load(t.values + r * columns + c);
            if (centroids) value = multiply_add(value, unit, Floats::load(centroids[r] + c));
            winner = where_greater(value, best, Ints::all(first + r), winner);
            best = maximum(value, best);
        }
        best.store(t.best + c);
        winner.store(where + c);
    }
}

inline int64_t padded(int64_t tokens) { return (tokens + LANES - 1) / LANES * LANES; }

template <class P> int64_t units_of(int64_t dim) { return (dim + P::PER_UNIT - 1) / P::PER_UNIT; }

template <class P> int64_t data_bytes(const Query &query) {
    const int64_t columns = padded(query.tokens) * P::DIGITS;
    return columns * units_of<P>(query.dim) * 4;
}

// Rewritten rows, similarities of a tile, scales.
template <class P> int64_t scratch_bytes(const Query &query) {
    constexpr int rows = most_rows<P::DIGITS>;
    return rows * (units_of<P>(query.dim) * 4 + P::COLUMNS * LANES * 4 + 4);
}

// The largest 8-bit step that the sums of a codec's bytes allow.
inline float steps(int32_t codec) { return codec == INT8 ? BYTE_STEPS : 127.0f; }

template <class P> void pack(const Query &query, Pack &to) {
    to.tokens = query.tokens, to.dim = query.dim;
    to.units = units_of<P>(query.dim), to.padded = padded(query.tokens);
    memset(to.data, 0, static_cast<size_t>(data_bytes<P>(query)));
    memset(to.start, 0, static_cast<size_t>(to.padded * P::DIGITS * 4));
    const int64_t width = P::COLUMNS * LANES;
    for (int64_t token = 0; token < to.padded; token++) {
        to.factor[token] = 1.0f;
        if (token >= query.tokens) continue;
        const int64_t block = token / width * width;
        const int64_t columns = to.padded - block < width ? to.padded - block : width;  // of this block
        const int64_t vector = (token - block) / LANES, lane = token % LANES;
        uint8_t *base = to.data + block * P::DIGITS * to.units * 4;
        const float *row = query.values + token * query.dim;
        if constexpr (P::PER_UNIT == 1) {
            float *out = reinterpret_cast<float *>(base) + vector * LANES + lane;
            for (int64_t k = 0; k < query.dim; k++) out[k * columns] = row[k];
        } else {
            float largest = 0;
            for (int64_t k = 0; k < query.dim; k++) largest = fabsf(row[k]) > largest ? fabsf(row[k]) : largest;
            const float most = steps(to.codec);
            // the leading digit is rounded to nearest, so that the next ones are at most a half step either way
            const float step = largest > 0 ? largest / most : 1.0f;
            int64_t sums[P::DIGITS] = {};
            for (int64_t k = 0; k < query.dim; k++) {
                double rest = static_cast<double>(row[k]) / step;
                for (int i = 0; i < P::DIGITS; i++) {
                    double digit = nearbyint(rest);
                    digit = digit > 127 ? 127 : digit < -127 ? -127 : digit;
                    rest = (rest - digit) * BASE;
                    sums[i] += static_cast<int64_t>(digit);
                    const int64_t column = vector * P::DIGITS + i;
                    const int64_t place = (k / 4 * columns * P::DIGITS + column * LANES + lane) * 4 + k % 4;
                    base[place] = static_cast<uint8_t>(static_cast<int8_t>(digit));
                }
            }
            for (int i = 0; i < P::DIGITS; i++) {
                const int64_t column = (block / LANES + vector) * P::DIGITS + i;
                to.start[column * LANES + lane] = static_cast<int32_t>(-bias_of(to.codec) * sums[i]);
            }
            float unit = step;
            for (int i = 1; i < P::DIGITS; i++) unit /= BASE;
            to.factor[token] = unit;
        }
    }
}

// How many rows to take of `left`: the last two tiles share what is left evenly.
inline int64_t share_of(int64_t left, int64_t most) {
    return left >= 2 * most ? most : left > most ? (left + 1) / 2 : left;
}

template <class P> void decode(const Pack &pack, const uint8_t *from, int64_t rows, uint8_t *to) {
    const int64_t bytes = row_bytes(pack.codec, pack.dim), stride = pack.units * 4;
    for (int64_t r = 0; r < rows; r++, from += bytes, to += stride) {
        if constexpr (P::PER_UNIT == 1) {
            floats_of(pack.codec, from, reinterpret_cast<float *>(to), pack.dim);
        } else {
            bytes_of(pack.codec, from, to, pack.dim);
            for (int64_t k = pack.dim; k < stride; k++) to[k] = 0;
        }
    }
}

// One block of query tokens, V vectors of them, against the rows of a tile.
template <class P, int V> void block(const Pack &pack, const Page &page, Tile &t, int rows, int64_t first, int64_t token,
                                     Scratch &scratch, float *values) {
    constexpr int S = P::PER_UNIT == 1 ? 512 : 128;
    const bool plain = !scratch.argmax && !page.codes;
    t.query = pack.data + token * P::DIGITS * t.stride;
    t.start = pack.start + token * P::DIGITS;
    t.best = scratch.best + token;
    t.values = plain ? nullptr : values;
    constexpr int most = most_rows<V * P::DIGITS>;
    t.stride == S ? run<P, V, S, most>(rows, t) : run<P, V, 0, most>(rows, t);
    if (plain) return;
    const float *centroids[most];
    if (page.codes)
        for (int r = 0; r < rows; r++)
            centroids[r] = page.table + load_any<uint16_t>(page.codes + first + r) * table_width(pack.tokens) + token;
    finish(t, rows, V * LANES, pack.factor + token, page.codes ? centroids : nullptr, static_cast<int32_t>(first),
           scratch.where + token);
}

template <class P> void score(const Pack &pack, const Page &page, Scratch &scratch) {
    constexpr int V = P::COLUMNS, WIDTH = V * LANES;
    const bool single = pack.padded == LANES;
    const bool direct = P::PER_UNIT == 1 && pack.codec == FP32;
    const int64_t bytes = row_bytes(pack.codec, pack.dim), stride = pack.units * 4;
    uint8_t *buffer = scratch.rows;
    float *values = reinterpret_cast<float *>(buffer + most_rows<P::DIGITS> * stride);
    float *scales = values + most_rows<P::DIGITS> * WIDTH;
    const int64_t block_bytes = WIDTH * P::DIGITS * stride;
    const int64_t group = block_bytes >= CACHED ? WIDTH : CACHED / block_bytes * WIDTH;  // tokens that stay in cache
    for (int64_t begin = 0; begin < pack.padded; begin += group) {
        const int64_t end = begin + group < pack.padded ? begin + group : pack.padded;
        for (int64_t row = 0; row < page.rows;) {
            const int64_t left = page.rows - row;
            const int64_t wanted = share_of(left, single ? most_rows<P::DIGITS> : most_rows<V * P::DIGITS>);
            const int rows = single ? fitting<P, 1>(wanted, page.rows) : fitting<P, V>(wanted, page.rows);
            const int64_t first = row + rows > page.rows ? page.rows - rows : row;
            const uint8_t *from = page.values + first * bytes;
            row = first + rows;
            if (!direct) decode<P>(pack, from, rows, buffer);
            if (page.scales) {
                halves(page.scales + 2 * first, scales, rows);
            } else {
                for (int r = 0; r < rows; r++) scales[r] = 1.0f;
            }
            const uint8_t *ahead = row < page.rows ? from + rows * bytes : page.ahead;
            Tile t{direct ? from : buffer, stride, pack.units, nullptr, nullptr, scales, nullptr, nullptr, ahead, 0};
            for (int64_t token = begin; token < end; token += WIDTH) {
                t.step = token == begin && ahead ? rows * bytes * UNROLL / pack.units : 0;
                if (pack.padded - token < WIDTH) {
                    block<P, 1>(pack, page, t, rows, first, token, scratch, values);
                } else {
                    block<P, V>(pack, page, t, rows, first, token, scratch, values);
                }
            }
        }
    }
}

template <class P> constexpr Kernel kernel_of{data_bytes<P>, scratch_bytes<P>, pack<P>, score<P>};
