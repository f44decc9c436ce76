// Binary rows with AVX-512. Tokens lie in the lanes, 16 at a time, and query tokens pass by one after another.
//
// Float query: of each 4 components, whose signs are half a byte, the 16 possible sums are in a table of bytes. One
// permutation looks up 4 halves of 16 tokens in 4 tables at once (its index is a half and, above it, the number of the
// byte), one byte product adds them up. Binary query: exclusive or, count of bits.

constexpr int GROUPS = 2;  // of 16 tokens, looked up together

inline int64_t sign_words(int64_t dim) { return (dim + 31) / 32; }
inline int64_t sign_words_padded(int64_t dim) { return (dim + 127) / 128 * 4; }

// The largest of each lane so far, and where: (tokens, 16) each; words of the tokens in hand.
inline int64_t signs_scratch_bytes(const Query &query) {
    return query.tokens * 128 + sign_words_padded(query.dim) * GROUPS * 64;
}

// 16 rows from `first` on, those past the end being the last: word w of each to words[w], row 4 i + j in lane 4 j + i.
inline void turn_words(const Page &page, int64_t bytes, int64_t first, __m512i *words) {
    alignas(64) uint8_t copy[16][16];
    const bool whole = bytes % 16 == 0;
    for (int64_t from = 0; from < bytes; from += 16, words += 4) {
        __m512i part[4];
        if (bytes == 16 && first + 16 <= page.rows) {
            repeat<4>([&](auto i) OCTAVO_LAMBDA { part[i] = _mm512_loadu_si512(page.values + (first + 4 * i) * 16); });
        } else {
            const __mmask16 mask =
                static_cast<__mmask16>(whole || bytes - from >= 16 ? 0xffff : (1 << (bytes - from)) - 1);
            for (int i = 0; i < 16; i++) {
                const int64_t row = first + i < page.rows ? first + i : page.rows - 1;
                _mm_store_si128(reinterpret_cast<__m128i *>(copy[i]),
                                _mm_maskz_loadu_epi8(mask, page.values + row * bytes + from));
            }
            repeat<4>([&](auto i) OCTAVO_LAMBDA { part[i] = _mm512_load_si512(copy[4 * i]); });
        }
        const __m512i a = _mm512_unpacklo_epi32(part[0], part[1]), b = _mm512_unpackhi_epi32(part[0], part[1]);
        const __m512i c = _mm512_unpacklo_epi32(part[2], part[3]), d = _mm512_unpackhi_epi32(part[2], part[3]);
        words[0] = _mm512_unpacklo_epi64(a, c), words[1] = _mm512_unpackhi_epi64(a, c);
        words[2] = _mm512_unpacklo_epi64(b, d), words[3] = _mm512_unpackhi_epi64(b, d);
    }
}

inline void turn_scales(const Page &page, int64_t first, Floats &scales, Ints &rows) {
    const __m512i lane = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    const __m512i last = _mm512_set1_epi32(static_cast<int>(page.rows - 1));
    rows = Ints::of(_mm512_min_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(first))), last));
    const int64_t left = page.rows - first;
    const __mmask16 mask = static_cast<__mmask16>(left >= 16 ? 0xffff : (1 << left) - 1);
    const __m512 all = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, page.scales + 2 * first));
    const __m512i within = _mm512_sub_epi32(rows.whole(), _mm512_set1_epi32(static_cast<int>(first)));
    scales = {_mm512_permutexvar_ps(within, all)};
}

// look(token, words, group): (16) similarities of the group's tokens, before the scale.
template <class Look>
OCTAVO_INLINE void score_signs(const Pack &pack, const Page &page, Scratch &scratch, Look look) {
    float *best = reinterpret_cast<float *>(scratch.rows);
    int32_t *where = reinterpret_cast<int32_t *>(best + pack.tokens * 16);
    __m512i *words = reinterpret_cast<__m512i *>(where + pack.tokens * 16);
    const int64_t bytes = pack.dim / 8, padded_words = sign_words_padded(pack.dim);
    for (int64_t i = 0; i < pack.tokens * 16; i++) best[i] = -__builtin_inff(), where[i] = 0;
    for (int64_t first = 0; first < page.rows; first += 16 * GROUPS) {
        Floats scales[GROUPS];
        Ints rows[GROUPS];
        repeat<GROUPS>([&](auto g) OCTAVO_LAMBDA {
            const int64_t from = first + 16 * g < page.rows ? first + 16 * g : page.rows - 1;
            turn_words(page, bytes, from, words + g * padded_words);
            turn_scales(page, from, scales[g], rows[g]);
        });
        const uint8_t *ahead =
            first + 32 * GROUPS <= page.rows ? page.values + (first + 16 * GROUPS) * bytes : page.ahead;
        if (ahead)
            for (int64_t i = 0; i < 16 * GROUPS * bytes; i += 64) __builtin_prefetch(ahead + i);
        look.take(words, padded_words);
        for (int64_t token = 0; token < pack.tokens; token++) {
            Floats found[GROUPS];
            look(token, words, padded_words, found);
            Floats most = Floats::load(best + token * 16);
            if (scratch.argmax) {
                Ints winner = Ints::load(where + token * 16);
                repeat<GROUPS>([&](auto g) OCTAVO_LAMBDA {
                    const Floats value = found[g] * scales[g];
                    winner = where_greater(value, most, rows[g], winner);
                    most = maximum(value, most);
                });
                winner.store(where + token * 16);
            } else {
                repeat<GROUPS>([&](auto g) OCTAVO_LAMBDA { most = maximum(found[g] * scales[g], most); });
            }
            most.store(best + token * 16);
        }
    }
    for (int64_t token = 0; token < pack.tokens; token++) {
        const __m512 lanes = _mm512_load_ps(best + token * 16);
        scratch.best[token] = _mm512_reduce_max_ps(lanes);
        const __mmask16 equal = _mm512_cmp_ps_mask(lanes, _mm512_set1_ps(scratch.best[token]), _CMP_EQ_OQ);
        const __m512i rows = _mm512_load_si512(where + token * 16);
        scratch.where[token] = _mm512_mask_reduce_min_epi32(equal, rows);
    }
}

// ---- float query ----------------------------------------------------------------------------------------------------

inline int64_t tables_bytes(const Query &query) { return query.tokens * sign_words(query.dim) * 128; }

// Table of 4 components whose signs are bits of n: 127.5 steps above the sum of the signed components.
inline void pack_tables(const Query &query, Pack &to) {
    to.tokens = query.tokens, to.dim = query.dim, to.padded = padded(query.tokens), to.units = sign_words(query.dim);
    memset(to.data, 0, static_cast<size_t>(tables_bytes(query)));
    for (int64_t token = 0; token < query.tokens; token++) {
        const float *row = query.values + token * query.dim;
        float largest = 0;
        for (int64_t k = 0; k < query.dim; k += 4) {
            const float sum = fabsf(row[k]) + fabsf(row[k + 1]) + fabsf(row[k + 2]) + fabsf(row[k + 3]);
            largest = sum > largest ? sum : largest;
        }
        const float step = largest > 0 ? largest / 127 : 1.0f;
        to.factor[token] = step;
        for (int64_t k = 0; k < query.dim; k += 4) {
            uint8_t *table = to.data + (token * to.units + k / 32) * 128 + k % 8 / 4 * 64 + k % 32 / 8 * 16;
            for (int n = 0; n < 16; n++) {
                float sum = 0;
                for (int i = 0; i < 4; i++) sum += n >> i & 1 ? row[k + i] : -row[k + i];
                const int steps = static_cast<int>(fabsf(sum) / step);  // at most 127
                table[n] = static_cast<uint8_t>(sum >= 0 ? 128 + steps : 127 - steps);
            }
        }
    }
}

// W: words of a row where that is known when this is compiled, else 0.
template <int W>
struct LookUp {
    const Pack &pack;
    __m512i low[W ? W : 1][GROUPS], high[W ? W : 1][GROUPS];
    static OCTAVO_INLINE __m512i index(__m512i halves) {  // (halves & 0x0f..) | number of the byte
        return _mm512_ternarylogic_epi32(halves, _mm512_set1_epi32(0x0f0f0f0f), _mm512_set1_epi32(0x30201000), 0xea);
    }
    OCTAVO_INLINE void take(const __m512i *words, int64_t stride) {
        if constexpr (W > 0)
            repeat<W>([&](auto w) OCTAVO_LAMBDA {
                repeat<GROUPS>([&](auto g) OCTAVO_LAMBDA {
                    low[w][g] = index(words[g * stride + w]);
                    high[w][g] = index(_mm512_srli_epi32(words[g * stride + w], 4));
                });
            });
    }
    OCTAVO_INLINE void operator()(int64_t token, const __m512i *words, int64_t stride, Floats *found) const {
        const __m512i ones = _mm512_set1_epi8(1);
        Ints sums[GROUPS][2];
        repeat<GROUPS>([&](auto g) OCTAVO_LAMBDA {
            sums[g][0] = Ints::all(static_cast<int32_t>(-255 * (pack.dim / 8)));
            sums[g][1] = Ints::all(0);
        });
        const uint8_t *tables = pack.data + token * pack.units * 128;
        const auto add = [&](const uint8_t *table, const __m512i *lows, const __m512i *highs) OCTAVO_LAMBDA {
            const __m512i first = _mm512_load_si512(table), second = _mm512_load_si512(table + 64);
            repeat<GROUPS>([&](auto g) OCTAVO_LAMBDA {
                const auto plus = [&](Ints &sum, __m512i at, __m512i from) OCTAVO_LAMBDA {
                    sum = Ints::of(_mm512_dpbusd_epi32(sum.whole(), _mm512_permutexvar_epi8(at, from), ones));
                };
                plus(sums[g][0], lows[g], first);
                plus(sums[g][1], highs[g], second);
            });
        };
        if constexpr (W > 0) {
            repeat<W>([&](auto w) OCTAVO_LAMBDA { add(tables + w * 128, low[w], high[w]); });
        } else {
            for (int64_t w = 0; w < pack.units; w++) {
                __m512i lows[GROUPS], highs[GROUPS];
                repeat<GROUPS>([&](auto g) OCTAVO_LAMBDA {
                    lows[g] = index(words[g * stride + w]);
                    highs[g] = index(_mm512_srli_epi32(words[g * stride + w], 4));
                });
                add(tables + w * 128, lows, highs);
            }
        }
        repeat<GROUPS>([&](auto g) OCTAVO_LAMBDA {
            found[g] = {_mm512_cvtepi32_ps(_mm512_add_epi32(sums[g][0].whole(), sums[g][1].whole()))};
        });
    }
};

inline void score_tables(const Pack &pack, const Page &page, Scratch &scratch) {
    if (pack.units == 4) {
        score_signs(pack, page, scratch, LookUp<4>{pack, {}, {}});
    } else {
        score_signs(pack, page, scratch, LookUp<0>{pack, {}, {}});
    }
}

constexpr Kernel sign_tables{tables_bytes, signs_scratch_bytes, pack_tables, score_tables};

// ---- binary query ---------------------------------------------------------------------------------------------------

struct CountBits {
    const Pack &pack;
    OCTAVO_INLINE void take(const __m512i *, int64_t) {}
    OCTAVO_INLINE void operator()(int64_t token, const __m512i *words, int64_t stride, Floats *found) const {
        const uint8_t *query = pack.data + token * pack.units * 8;
        __m512i counts[GROUPS];
        repeat<GROUPS>([&](auto g) OCTAVO_LAMBDA { counts[g] = _mm512_setzero_si512(); });
        for (int64_t w = 0; w < sign_words(pack.dim); w++) {
            const __m512i bits = _mm512_set1_epi32(load_any<int32_t>(query + 4 * w));
            repeat<GROUPS>([&](auto g) OCTAVO_LAMBDA {
                const __m512i differing = _mm512_xor_si512(bits, words[g * stride + w]);
                counts[g] = _mm512_add_epi32(counts[g], _mm512_popcnt_epi32(differing));
            });
        }
        const __m512i dim = _mm512_set1_epi32(static_cast<int>(pack.dim));
        repeat<GROUPS>([&](auto g) OCTAVO_LAMBDA {
            found[g] = {_mm512_cvtepi32_ps(_mm512_sub_epi32(dim, _mm512_slli_epi32(counts[g], 1)))};
        });
    }
};

inline void score_counts(const Pack &pack, const Page &page, Scratch &scratch) {
    score_signs(pack, page, scratch, CountBits{pack});
}

constexpr Kernel sign_counts{bits_data_bytes, signs_scratch_bytes, bits_pack, score_counts};
