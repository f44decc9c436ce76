// Included first inside each instruction set's namespace (and target): unrolled loops, loads from any address.

template <class F, int... I>
OCTAVO_INLINE void each(F &f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F>
OCTAVO_INLINE void repeat(F f) {
    each(f, std::make_integer_sequence<int, N>{});
}

template <class T>
OCTAVO_INLINE T load_any(const void *from) {
    T value;
    memcpy(&value, from, sizeof value);
    return value;
}
