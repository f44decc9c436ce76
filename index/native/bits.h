// Binary query x binary rows: dim - 2 x the number of bits that differ, by counting bits eight bytes at a time.
// Included after page.h. A query token's sign bits lie one after another in words of 64; its factor is its mean
// magnitude.

inline int64_t words_of(int64_t dim) { return (dim + 63) / 64; }

inline int64_t bits_data_bytes(const Query &query) { return query.tokens * words_of(query.dim) * 8; }
inline int64_t bits_scratch_bytes(const Query &query) { return words_of(query.dim) * 8; }

inline float mean_magnitude(const float *row, int64_t dim) {
    double sum = 0;
    for (int64_t k = 0; k < dim; k++) sum += static_cast<double>(fabsf(row[k]));
    return static_cast<float>(sum / static_cast<double>(dim));
}

inline void bits_pack(const Query &query, Pack &to) {
    to.tokens = query.tokens, to.dim = query.dim;
    to.units = words_of(query.dim), to.padded = padded(query.tokens);
    memset(to.data, 0, static_cast<size_t>(bits_data_bytes(query)));
    for (int64_t token = 0; token < query.tokens; token++) {
        const float *row = query.values + token * query.dim;
        for (int64_t k = 0; k < query.dim; k++)
            if (row[k] >= 0) to.data[token * to.units * 8 + k / 8] |= static_cast<uint8_t>(1 << k % 8);
        to.factor[token] = mean_magnitude(row, query.dim);
    }
}

inline void bits_score(const Pack &pack, const Page &page, Scratch &scratch) {
    const int64_t bytes = pack.dim / 8;
    uint64_t *words = reinterpret_cast<uint64_t *>(scratch.rows);
    words[pack.units - 1] = 0;
    for (int64_t row = 0; row < page.rows; row++) {
        memcpy(words, page.values + row * bytes, static_cast<size_t>(bytes));
        float scale;
        halves(page.scales + 2 * row, &scale, 1);
        for (int64_t token = 0; token < pack.tokens; token++) {
            const uint8_t *query = pack.data + token * pack.units * 8;
            int64_t differing = 0;
            for (int64_t w = 0; w < pack.units; w++)
                differing += __builtin_popcountll(words[w] ^ load_any<uint64_t>(query + 8 * w));
            const float value = scale * static_cast<float>(pack.dim - 2 * differing);
            if (value > scratch.best[token])
                scratch.best[token] = value, scratch.where[token] = static_cast<int32_t>(row);
        }
    }
}

constexpr Kernel hamming{bits_data_bytes, bits_scratch_bytes, bits_pack, bits_score};
