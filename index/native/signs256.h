// Binary rows with AVX2. Of each 4 components, whose signs are half a byte, the 16 possible sums are in a
// table of 7-bit steps (of a binary query, the number of signs that agree); one shuffle looks up the halves of 32
// tokens in one table. So 32 rows are turned first: byte b of all of them side by side.

constexpr int64_t MOST_SIGNS = 2048;  // sums of more components could pass 16 bits
constexpr int TURNED = 32;            // rows at a time

inline int64_t tables_bytes(const Query &query) { return query.tokens * query.dim / 8 * 32; }

inline int64_t turned_bytes(int64_t dim) { return (dim / 8 + 15) / 16 * 16 * 2 * TURNED; }  // low halves, high halves

inline int64_t tables_scratch_bytes(const Query &query) { return turned_bytes(query.dim) + query.tokens * 64; }

// Tables of a binary query: how many of 4 signs agree with those that are bits of n.
inline void pack_counts(const Query &query, Pack &to) {
    to.tokens = query.tokens, to.dim = query.dim, to.padded = padded(query.tokens), to.units = query.dim / 8;
    for (int64_t token = 0; token < query.tokens; token++) {
        const float *row = query.values + token * query.dim;
        to.factor[token] = 2 * mean_magnitude(row, query.dim);
        for (int64_t k = 0; k < query.dim; k += 4) {
            int signs = 0;
            for (int i = 0; i < 4; i++) signs |= (row[k + i] >= 0) << i;
            uint8_t *table = to.data + token * query.dim / 8 * 32 + k / 4 * 16;
            for (int n = 0; n < 16; n++) table[n] = static_cast<uint8_t>(4 - __builtin_popcount(n ^ signs));
        }
    }
}

// Table of 4 components whose signs are bits of n: 63.5 steps above the sum of the signed components.
inline void pack_tables(const Query &query, Pack &to) {
    to.tokens = query.tokens, to.dim = query.dim, to.padded = padded(query.tokens), to.units = query.dim / 8;
    for (int64_t token = 0; token < query.tokens; token++) {
        const float *row = query.values + token * query.dim;
        float largest = 0;
        for (int64_t k = 0; k < query.dim; k += 4) {
            const float sum = fabsf(row[k]) + fabsf(row[k + 1]) + fabsf(row[k + 2]) + fabsf(row[k + 3]);
            largest = sum > largest ? sum : largest;
        }
        const float step = largest > 0 ? largest / 63 : 1.0f;
        to.factor[token] = step;
        for (int64_t k = 0; k < query.dim; k += 4) {
            uint8_t *table = to.data + token * query.dim / 8 * 32 + k / 4 * 16;
            for (int n = 0; n < 16; n++) {
                float sum = 0;
                for (int i = 0; i < 4; i++) sum += n >> i & 1 ? row[k + i] : -row[k + i];
                const int steps = static_cast<int>(fabsf(sum) / step);  // at most 63
                table[n] = static_cast<uint8_t>(sum >= 0 ? 64 + steps : 63 - steps);
            }
        }
    }
}

// 32 rows from `first` on, those past the end being the last: low halves of byte b to to[2 b], high ones to to[2 b +
// 1].
inline void turn(const Page &page, int64_t bytes, int64_t first, __m256i *to) {
    const __m256i half = _mm256_set1_epi8(15);
    for (int64_t from = 0; from < bytes; from += 16) {
        __m256i a[16], b[16];
        for (int i = 0; i < 16; i++) {
            __m128i part[2];
            for (int h = 0; h < 2; h++) {
                const int64_t row = first + i + 16 * h < page.rows ? first + i + 16 * h : page.rows - 1;
                const uint8_t *at = page.values + row * bytes + from;
                if (bytes - from >= 16) {
                    part[h] = _mm_loadu_si128(reinterpret_cast<const __m128i *>(at));
                } else {
                    alignas(16) uint8_t copy[16] = {};
                    memcpy(copy, at, static_cast<size_t>(bytes - from));
                    part[h] = _mm_load_si128(reinterpret_cast<const __m128i *>(copy));
                }
            }
            a[i] = _mm256_set_m128i(part[1], part[0]);
        }
        const auto pass = [](const __m256i *x, __m256i *y) OCTAVO_LAMBDA {
            repeat<8>([&](auto i) OCTAVO_LAMBDA {
                y[2 * i] = _mm256_unpacklo_epi8(x[i], x[i + 8]);
                y[2 * i + 1] = _mm256_unpackhi_epi8(x[i], x[i + 8]);
            });
        };
        pass(a, b), pass(b, a), pass(a, b), pass(b, a);
        for (int i = 0; i < 16 && from + i < bytes; i++, to += 2) {
            to[0] = _mm256_and_si256(a[i], half);
            to[1] = _mm256_and_si256(_mm256_srli_epi16(a[i], 4), half);
        }
    }
}

// Sums of the tables' entries, of even rows and of odd ones. B: bytes of a row where known when compiled, else 0.
template <int B>
OCTAVO_INLINE void look_up(const uint8_t *table, const __m256i *halves, int64_t any, __m256i &even, __m256i &odd) {
    __m256i all = _mm256_setzero_si256();
    odd = _mm256_setzero_si256();
    const int64_t bytes = B ? B : any;
    for (int64_t b = 0; b < bytes; b++) {
        const auto found = [&](int64_t i) OCTAVO_LAMBDA {
            const __m128i entries = _mm_load_si128(reinterpret_cast<const __m128i *>(table + i * 16));
            return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), halves[i]);
        };
        const __m256i sum = _mm256_add_epi8(found(2 * b), found(2 * b + 1));
        all = _mm256_add_epi16(all, sum);
        odd = _mm256_add_epi16(odd, _mm256_srli_epi16(sum, 8));
    }
    even = _mm256_sub_epi16(all, _mm256_slli_epi16(odd, 8));
}

// middle: what each table's entries lie about.
inline void score_tables(const Pack &pack, const Page &page, Scratch &scratch, float middle_of_table) {
    const int64_t bytes = pack.dim / 8;
    __m256i *turned = reinterpret_cast<__m256i *>(scratch.rows);
    float *best = reinterpret_cast<float *>(scratch.rows + turned_bytes(pack.dim));
    int32_t *where = reinterpret_cast<int32_t *>(best + pack.tokens * LANES);
    for (int64_t i = 0; i < pack.tokens * LANES; i++) best[i] = -__builtin_inff(), where[i] = 0;
    const float middle = middle_of_table * 2 * static_cast<float>(bytes);
    for (int64_t first = 0; first < page.rows; first += TURNED) {
        turn(page, bytes, first, turned);
        const uint8_t *ahead = first + 2 * TURNED <= page.rows ? page.values + (first + TURNED) * bytes : page.ahead;
        if (ahead)
            for (int64_t i = 0; i < TURNED * bytes; i += 64) __builtin_prefetch(ahead + i);
        // lane l of quarter p: row 2 l + 16 (p % 2) of the even ones, p < 2, or the odd ones
        alignas(32) float each[TURNED], scales[TURNED], offsets[TURNED];
        alignas(32) int32_t rows[TURNED];
        const int64_t count = page.rows - first < TURNED ? page.rows - first : TURNED;
        halves(page.scales + 2 * first, each, count);
        for (int i = 0; i < TURNED; i++) {
            const int64_t row = i % LANES * 2 + i / LANES % 2 * 16 + i / 16;
            rows[i] = static_cast<int32_t>(row < count ? first + row : page.rows - 1);
            scales[i] = each[rows[i] - first];
            offsets[i] = -middle * scales[i];
        }
        for (int64_t token = 0; token < pack.tokens; token++) {
            const uint8_t *table = pack.data + token * bytes * 32;
            __m256i sums[2];
            bytes == 16 ? look_up<16>(table, turned, 16, sums[0], sums[1])
                        : look_up<0>(table, turned, bytes, sums[0], sums[1]);
            Floats most = Floats::load(best + token * LANES);
            Ints winner = Ints::load(where + token * LANES);
            repeat<4>([&](auto p) OCTAVO_LAMBDA {
                const __m128i part = _mm256_extracti128_si256(sums[p / 2], p % 2);
                const Floats sum{_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(part))};
                const Floats value = multiply_add(sum, Floats::load(scales + 8 * p), Floats::load(offsets + 8 * p));
                if (scratch.argmax) {  // of equals the first: rows of a lane do not come in order
                    const Ints row = Ints::load(rows + 8 * p);
                    winner = where_greater(value, most, row, winner);
                    const __m256 equal = _mm256_cmp_ps(value.v, most.v, _CMP_EQ_OQ);
                    const __m256i lower = _mm256_min_epi32(row.whole(), winner.whole());
                    winner = Ints::of(_mm256_blendv_epi8(winner.whole(), lower, _mm256_castps_si256(equal)));
                }
                most = maximum(value, most);
            });
            most.store(best + token * LANES);
            if (scratch.argmax) winner.store(where + token * LANES);
        }
    }
    for (int64_t i = 0; i < pack.tokens * LANES; i++) {
        const int64_t token = i / LANES;
        if (best[i] > scratch.best[token] || (best[i] == scratch.best[token] && where[i] < scratch.where[token]))
            scratch.best[token] = best[i], scratch.where[token] = where[i];
    }
}

inline void score_steps(const Pack &pack, const Page &page, Scratch &scratch) {
    score_tables(pack, page, scratch, 63.5f);
}
inline void score_counts(const Pack &pack, const Page &page, Scratch &scratch) {
    score_tables(pack, page, scratch, 2.0f);
}

constexpr Kernel sign_tables{tables_bytes, tables_scratch_bytes, pack_tables, score_steps};
constexpr Kernel sign_counts{tables_bytes, tables_scratch_bytes, pack_counts, score_counts};
