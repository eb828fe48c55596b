/* The inner loops of depthwise filters in strips: see strips.pxi. A template; needs simd.h. */
#if !defined(OF)
#define TEMPLATE "conv/strips.h"
enum { MAX_STRIP_TAPS = 7 };    /* of a column */
typedef struct {
    Py_ssize_t w, rows, cols;       /* of a plane of pixels, of outputs */
    Py_ssize_t first, end;          /* the rows to read, counted from the top padding */
    Py_ssize_t start, step;         /* output x reads pixel x + start + j * step */
    Py_ssize_t n_taps, n_columns;   /* of the filter; a column has n_taps */
    unsigned short *kept;           /* (n_strips, n_columns) the lanes of pixels */
} Strips;

#if defined(__AVX512F__)
#include <immintrin.h>
enum { HAS_STRIPS = 1 };
#define LOAD32 _mm512_maskz_loadu_ps
#define LOAD64 _mm512_maskz_loadu_pd
#define STORE32 _mm512_mask_storeu_ps
#define STORE64 _mm512_mask_storeu_pd
#include "for_reals.h"
#define strips_plane(...) ON_REALS(strips_plane, __VA_ARGS__)
#else
#undef TEMPLATE
enum { HAS_STRIPS = 0 };
#define strips_plane(...) (void)0
#endif

#else /* ---------------------------------------------- for float, and for double */

INLINE void OF(strip)(real *out, const real *pixels, const Strips *p,
                        const unsigned short *kept, unsigned stored, const real *w,
                        real bias, int with_relu, const int n_taps,
                        const Py_ssize_t n_columns) {
    const Py_ssize_t end = p->end, rows = p->rows, cols = p->cols, step = p->step;
    const Py_ssize_t width = p->w;
    const int square = n_taps == n_columns;
    const vec start = OF(every)(bias);
    vec acc[MAX_STRIP_TAPS], weight[9];
    unsigned short lanes[MAX_STRIP_TAPS];
    /* In registers: 3x3 takes 45 ns instead of 54 for 16 x 16 pixels. */
    if (square) for (int j = 0; j < n_taps; j++) lanes[j] = kept[j];
    if (square && n_taps <= 3) for (int t = 0; t < n_taps * n_taps; t++) {
        weight[t] = OF(every)(w[t]);
        KEEP(weight[t]); }
    UNROLL for (int i = 0; i < n_taps; i++) acc[i] = start;
    for (Py_ssize_t r = p->first; r < end; r++, pixels += width) {
        UNROLL for (int i = n_taps - 1; i > 0; i--) {
            acc[i] = acc[i - 1];
            KEEP(acc[i]); }  /* clang would call memmove */
        acc[0] = start;
        for (Py_ssize_t j = 0; j < n_columns; j++) {
            vec x = OF(LOAD)(square ? lanes[j] : kept[j], pixels + j * step);
            UNROLL for (int i = 0; i < n_taps; i++)
                if (square && n_taps <= 3) acc[i] += weight[j * n_taps + i] * x;
                else acc[i] += w[j * n_taps + i] * x; }
        vec done = acc[n_taps - 1];
        if (with_relu) done = OF(rectified)(done);
        /* Row 0 is stored again after rows that would lie above it. */
        OF(STORE)(out + (r < n_taps - 1 ? 0 : r - n_taps + 1) * cols, stored, done); }
    UNROLL for (int i = n_taps - 2; i >= 0; i--) {
        Py_ssize_t y = end - 1 - i;
        if (y < 0 || y >= rows) continue;
        if (with_relu) acc[i] = OF(rectified)(acc[i]);
        OF(STORE)(out + y * cols, stored, acc[i]); } }

/* All outputs of a feature, from its plane of pixels. */
static void OF(strips_plane)(real *out, const real *plane, const Strips *p, const real *w,
                             real bias, int with_relu) {
    const unsigned short *kept = p->kept;
    plane += p->start;
    for (Py_ssize_t x = 0; x < p->cols; x += OF(N_LANES), kept += p->n_columns) {
        Py_ssize_t n = p->cols - x < OF(N_LANES) ? p->cols - x : OF(N_LANES);
        unsigned stored = (1u << n) - 1;
#define STRIP(n)                                                                              \
        if (p->n_columns == n)                                                                \
            OF(strip)(out + x, plane + x, p, kept, stored, w, bias, with_relu, n, n);         \
        else                                                                                  \
            OF(strip)(out + x, plane + x, p, kept, stored, w, bias, with_relu, n, p->n_columns)
        switch (p->n_taps) { CASE(2, STRIP) CASE(3, STRIP) CASE(4, STRIP) CASE(5, STRIP)
            CASE(6, STRIP) CASE(7, STRIP) }
#undef STRIP
    }
}

#endif
