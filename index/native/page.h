// A page as tiles, and the query packed for them. Included after tile.h, in each instruction set's namespace.

// The numbers of rows that a tile of C vectors of sums is compiled for. Others are made of these, some rows counted twice,
// which a maximum does not mind.
template <int C>
constexpr int most_rows = 2 * TILE_ROWS / C / 2 * 2;
constexpr int smaller(int rows) { return rows <= 2 ? rows - 1 : rows <= 16 ? rows - 2 : rows - 4; }

inline int fitting(int64_t rows, int64_t room, int most) {
    int fit = most;
    while (smaller(fit) >= rows) fit = smaller(fit);
    while (fit > room) fit = smaller(fit);
    return fit;
}

template <class P, int C, int R>
OCTAVO_INLINE void run(int rows, const Tile &t) {
    if constexpr (R >= 1) {
        if (rows == R) return tile<P, R, C, 0>(t);
        run<P, C, smaller(R)>(rows, t);
    }
}

// The rest of a tile whose similarities were left in t.values: winners are kept.
inline void finish(const Tile &t, int rows, int columns, int32_t first, int32_t *where) {
    for (int c = 0; c < columns; c += LANES) {
        Floats best = Floats::load(t.best + c);
        Ints winner = Ints::load(where + c);
        for (int r = 0; r < rows; r++) {
            const Floats value = Floats::load(t.values + r * columns + c);
            winner = where_greater(value, best, Ints::all(first + r), winner);
            best = maximum(value, best);
        }
        best.store(t.best + c);
        winner.store(where + c);
    }
}

inline int64_t padded(int64_t tokens) { return (tokens + LANES - 1) / LANES * LANES; }

template <class P>
int64_t units_of(int64_t dim) {
    constexpr int components = P::PER_GROUP * P::WIDE;
    return (dim + components - 1) / components;
}
template <class P>
int64_t row_stride(int64_t dim) {
    return units_of<P>(dim) * 4 * P::WIDE;
}

template <class P>
int64_t data_bytes(const Query &query) {
    return padded(query.tokens) * P::DIGITS * row_stride<P>(query.dim);
}

// Rewritten rows, similarities of a tile, scales.
template <class P>
int64_t scratch_bytes(const Query &query) {
    return most_rows<P::STEP> * (row_stride<P>(query.dim) + P::COLUMNS * LANES * 4 + 4);
}

// The largest 8-bit step that the sums of a codec's bytes allow.
inline float steps(int32_t codec) { return codec == INT8 ? BYTE_STEPS : 127.0f; }

// Vectors of sums of the block of query tokens that begins at `token`.
template <class P>
OCTAVO_INLINE int64_t sums_of(const Pack &pack, int64_t token) {
    constexpr int64_t width = P::COLUMNS * LANES, tokens = LANES * P::STEP / P::SUMS;  // of a block, of STEP vectors
    const int64_t left = pack.tokens - token;
    return ((left < width ? left : width) + tokens - 1) / tokens * P::STEP;
}

// Where a group of a query token's digit lies: block after block, unit after unit, vector after vector.
template <class P>
struct Place {
    const Pack &pack;
    OCTAVO_INLINE int64_t operator()(int64_t token, int digit, int64_t group) const {
        constexpr int64_t width = P::COLUMNS * LANES, tokens = LANES / P::WIDE;  // of a block, of a vector
        const int64_t block = token / width * width, sums = sums_of<P>(pack, block);
        const int64_t unit = group / P::WIDE;
        return block * P::DIGITS * pack.units * P::WIDE + unit * sums * LANES + column(token - block, digit) * LANES +
               token % tokens * P::WIDE + group % P::WIDE;
    }
    static OCTAVO_INLINE int64_t column(int64_t token, int digit) {  // token: within its block
        return token / LANES * P::SUMS + token % LANES / (LANES / P::WIDE) * P::DIGITS + digit;
    }
};

// A query token as digits of at most `most` steps; gives the last digit's step. sums: of each digit.
template <class P, class Put>
float digits_of(const float *row, int64_t dim, float most, int64_t *sums, Put put) {
    float largest = 0;
    for (int64_t k = 0; k < dim; k++) largest = fabsf(row[k]) > largest ? fabsf(row[k]) : largest;
    const float step = largest > 0 ? largest / most : 1.0f;
    float last = step;
    for (int i = 1; i < P::DIGITS; i++) last /= BASE;
    for (int64_t k = 0; k < dim; k++) {
        double rest = static_cast<double>(row[k]) / static_cast<double>(step);
        for (int i = 0; i < P::DIGITS; i++) {
            double digit = nearbyint(rest);
            digit = digit > 127 ? 127 : digit < -127 ? -127 : digit;
            rest = (rest - digit) * static_cast<double>(BASE);
            sums[i] += static_cast<int64_t>(digit);
            put(i, k, static_cast<int8_t>(digit));
        }
    }
    return last;
}

template <class P>
void pack(const Query &query, Pack &to) {
    to.tokens = query.tokens, to.dim = query.dim;
    to.units = units_of<P>(query.dim), to.padded = padded(query.tokens);
    memset(to.data, 0, static_cast<size_t>(data_bytes<P>(query)));
    memset(to.start, 0, static_cast<size_t>(to.padded * P::SUMS * 4));
    const Place<P> place{to};
    for (int64_t token = 0; token < to.padded; token++) {
        to.factor[token] = 1.0f;
        if (token >= query.tokens) continue;
        const float *row = query.values + token * query.dim;
        if constexpr (P::PER_GROUP == 1) {
            float *data = reinterpret_cast<float *>(to.data);
            for (int64_t k = 0; k < query.dim; k++) data[place(token, 0, k)] = row[k];
        } else {
            int64_t sums[P::DIGITS] = {};
            to.factor[token] = digits_of<P>(row, query.dim, steps(to.codec), sums, [&](int i, int64_t k, int8_t digit) {
                to.data[place(token, i, k / 4) * 4 + k % 4] = static_cast<uint8_t>(digit);
            });
            const int64_t block = token / (P::COLUMNS * LANES) * (P::COLUMNS * LANES);
            for (int i = 0; i < P::DIGITS; i++)
                to.start[block * P::SUMS + place.column(token - block, i) * LANES +
                         token % (LANES / P::WIDE) * P::WIDE] = static_cast<int32_t>(-bias_of(to.codec) * sums[i]);
        }
    }
}

// How many rows to take of `left`: the last two tiles share what is left evenly.
inline int64_t share_of(int64_t left, int64_t most) {
    return left >= 2 * most ? most : left > most ? (left + 1) / 2 : left;
}

template <class P, int D>
void decode_rows(const Pack &pack, const uint8_t *from, int64_t rows, uint8_t *to) {
    const int64_t bytes = row_bytes(pack.codec, D ? D : pack.dim), stride = row_stride<P>(D ? D : pack.dim);
    for (int64_t r = 0; r < rows; r++, from += bytes, to += stride) {
        if constexpr (P::PER_GROUP == 1) {
            floats_of<D>(pack.codec, from, reinterpret_cast<float *>(to), pack.dim);
            if (P::WIDE == 2 && pack.dim % 2) reinterpret_cast<float *>(to)[pack.dim] = 0;
        } else {
            bytes_of<D>(pack.codec, from, to, pack.dim);
            for (int64_t k = D ? D : pack.dim; k < stride; k++) to[k] = 0;
        }
    }
}
template <class P>
void decode(const Pack &pack, const uint8_t *from, int64_t rows, uint8_t *to) {
    pack.dim == 128 ? decode_rows<P, 128>(pack, from, rows, to) : decode_rows<P, 0>(pack, from, rows, to);
}

// One block of query tokens against the rows of a tile; sums: its vectors of sums, C or fewer.
template <class P, int C>
OCTAVO_INLINE void block(int64_t sums, const Pack &pack, Tile &t, int rows, int64_t first, int64_t token,
                         Scratch &scratch, float *values) {
    if constexpr (C > P::STEP)
        if (sums < C) return block<P, C - P::STEP>(sums, pack, t, rows, first, token, scratch, values);
    constexpr int S = P::PER_GROUP == 1 ? 512 : 128, V = (C + P::SUMS - 1) / P::SUMS, most = most_rows<C>;
    t.query = pack.data + token * P::DIGITS * t.stride;
    t.start = pack.start + token * P::SUMS;
    t.best = scratch.best + token;
    t.values = scratch.argmax || scratch.all ? values : nullptr;
    rows == most &&t.stride == S ? tile<P, most, C, S>(t) : run<P, C, most>(rows, t);
    if (scratch.argmax) finish(t, rows, V * LANES, static_cast<int32_t>(first), scratch.where + token);
    for (int64_t r = 0; scratch.all && r < rows; r++)
        memcpy(scratch.all + (first + r) * pack.padded + token, values + r * V * LANES, V * LANES * 4);
}

// The most rows of a tile of so many vectors of sums.
template <class P, int C>
int rows_of(int64_t sums) {
    if constexpr (C > P::STEP)
        if (sums < C) return rows_of<P, C - P::STEP>(sums);
    return most_rows<C>;
}

template <class P>
void score(const Pack &pack, const Page &page, Scratch &scratch) {
    constexpr int WIDTH = P::COLUMNS * LANES, C = P::COLUMNS * P::SUMS;
    const int most = rows_of<P, C>(sums_of<P>(pack, 0));  // the first block has the most sums
    const bool direct = P::PER_GROUP == 1 && pack.codec == FP32;
    const int64_t bytes = row_bytes(pack.codec, pack.dim), stride = row_stride<P>(pack.dim);
    uint8_t *buffer = scratch.rows;
    float *values = reinterpret_cast<float *>(buffer + most * stride);
    float *scales = values + most * WIDTH;
    const int64_t block_bytes = WIDTH * P::DIGITS * stride;
    const int64_t group = block_bytes >= CACHED ? WIDTH : CACHED / block_bytes * WIDTH;  // tokens that stay in cache
    for (int64_t begin = 0; begin < pack.padded; begin += group) {
        const int64_t end = begin + group < pack.padded ? begin + group : pack.padded;
        for (int64_t row = 0; row < page.rows;) {
            const int rows = fitting(share_of(page.rows - row, most), page.rows, most);
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
                block<P, C>(sums_of<P>(pack, token), pack, t, rows, first, token, scratch, values);
            }
        }
    }
}

template <class P>
constexpr Kernel kernel_of{data_bytes<P>, scratch_bytes<P>, pack<P>, score<P>};

// ---- for the first stage --------------------------------------------------------------------------------------------

// Similarities (rows, padded) of centroids with query tokens -> tables of bytes, (rows, 32) for each 32 tokens. A byte
// spans the same similarity for every token, from what centroids reach in the mean to the best of them. columns: room
// for 4 x padded.
inline void tables_of(const Pack &pack, const float *similarities, int64_t rows, float *columns, uint8_t *to) {
    const int64_t width = pack.padded;
    float *high = columns, *sum = high + width, *slope = sum + width, *base = slope + width, span = 1e-9f;
    for (int64_t c = 0; c < width; c++) high[c] = similarities[c], sum[c] = 0;
    for (int64_t r = 0; r < rows; r++) {
        const float *row = similarities + r * width;
        for (int64_t c = 0; c < width; c++) {
            high[c] = row[c] > high[c] ? row[c] : high[c];
            sum[c] += row[c];
        }
    }
    for (int64_t c = 0; c < pack.tokens; c++) {
        const float reach = (high[c] - sum[c] / static_cast<float>(rows)) * pack.factor[c];
        span = reach > span ? reach : span;
    }
    for (int64_t c = 0; c < width; c++) {
        slope[c] = c < pack.tokens ? 255 / span * pack.factor[c] : 0;
        base[c] = c < pack.tokens ? 255.5f : 0;
    }
    for (int64_t first = 0; first < width; first += 32) {
        const int64_t columns_here = width - first < 32 ? width - first : 32;
        for (int64_t r = 0; r < rows; r++, to += 32) {
            const float *row = similarities + r * width + first;
            for (int64_t c = 0; c < columns_here; c++) {
                const float value = (row[c] - high[first + c]) * slope[first + c] + base[first + c];
                to[c] = static_cast<uint8_t>(static_cast<int32_t>(value < 0 ? 0 : value));
            }
            for (int64_t c = columns_here; c < 32; c++) to[c] = 0;
        }
    }
}

inline float product_of(const float *vector, const uint8_t *row, int64_t dim) {
    constexpr int64_t PART = 8 * LANES;
    float floats[PART], lanes[LANES], total = 0;
    Floats sums[2] = {Floats::all(0), Floats::all(0)};
    int64_t k = 0;
    for (; k + PART <= dim; k += PART) {
        halves(row + 2 * k, floats, PART);
        for (int64_t i = 0; i < PART; i += 2 * LANES) {
            sums[0] = multiply_add(Floats::load(floats + i), Floats::load(vector + k + i), sums[0]);
            sums[1] = multiply_add(Floats::load(floats + i + LANES), Floats::load(vector + k + i + LANES), sums[1]);
        }
    }
    halves(row + 2 * k, floats, dim - k);
    for (int64_t i = 0; i < dim - k; i++) total += floats[i] * vector[k + i];
    multiply_add(sums[0], Floats::all(1), sums[1]).store(lanes);
    for (int64_t half = LANES / 2; half; half /= 2)
        for (int64_t i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return total + lanes[0];
}
