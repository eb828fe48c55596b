# What a pooling is, and the implementations of it: which accept it, and which is the fastest.
# Needs common/memory.pxi.

from libc.math cimport log2
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include "simd.h"
    #include "pool/plan.h"
    #include "pool/index.h"
    #include "pool/strips.h"
    #include "pool/windows.h"
    #include "pool/gather.h"
    #include "pool/doubling.h"
    #include "pool/scatter.h"
    #include "pool/switches.h"
    """
    enum: VECTOR_BYTES
    enum: MASKED_READS        # no vector reads what its lanes leave out
    enum: MAX_STRIP_WIDTH
    enum: N_TILES
    int TILE_POOL(int tile) nogil
    int TILE_STRIDE(int tile) nogil
    ctypedef struct PoolAxis:
        Py_ssize_t size, out, pool, stride, start, after
    ctypedef struct Doubling:
        PoolAxis height, width
        Py_ssize_t spread_y, spread_x, cells, line, pitch, rows, block
    ctypedef struct Pooling:
        PoolAxis height, width
        Py_ssize_t img_size, out_size     # in reals
        bint is_max, include_pad, in_double
        int tile
        Py_ssize_t count
        Doubling doubling
        int32_t pixel[256]
    Py_ssize_t pool_count(const PoolAxis *, Py_ssize_t, bint) nogil

# Of n planes, forward or backward. Offsets, or rows and columns of maxima (pairs), or neither.
ctypedef void (*pool_function)(const Pooling *p, Py_ssize_t n, const void *source, void *out,
                               uint8_t *offsets, Py_ssize_t *pairs, void *scratch) noexcept nogil

cdef extern from *:
    pool_function pool_windows32, pool_windows64, pool_strips32, pool_strips64
    pool_function pool_doubling32, pool_doubling64
    pool_function unpool_whole32, unpool_whole64, unpool_gather32, unpool_gather64
    pool_function unpool_doubling32, unpool_doubling64, unpool_scatter32, unpool_scatter64

cdef enum:
    MAX_OFFSETS = 256         # pixels of a window, whose argmax offsets fit in a byte
    MAX_TERMS = 64            # of a sum, one after the other, that lose little by rounding
    GROUP_BYTES = 16 * 1024   # of planes at a time, whose strips share what is found out once
    BLOCK_BYTES = 192 * 1024  # of reduced rows in scratch, where that is possible: a part of L2

cdef enum Switching:          # where maxima are
    NO_SWITCHES, OFFSETS, PAIRS

cdef struct PoolPlan:
    Pooling pooling
    pool_function run
    bint is_backward
    Switching switches
    bint is_known             # but for some backward passes by pairs, windows are
    bint by_offsets           # pairs are made from offsets, or become offsets
    Py_ssize_t itemsize, n_channels
    Py_ssize_t source_size, target_size       # of planes, in reals
    Py_ssize_t group          # planes that an implementation gets at a time
    Py_ssize_t slack          # reals around them that it reads
    Py_ssize_t scratch        # bytes of a thread

cdef struct Estimate:
    double cycles             # of a plane; less than 0: it does not accept this pooling
    Py_ssize_t scratch        # bytes

cdef struct PoolImplementation:
    const char *name
    Estimate (*estimate)(const PoolPlan *) noexcept
    pool_function run[2]      # of float and of double
    bint in_lanes             # by masked vectors, and by offsets


# --- a plane ----------------------------------------------------------------------------

cdef PoolAxis pool_axis(Py_ssize_t size, Py_ssize_t out, Py_ssize_t pool, Py_ssize_t stride,
                        Py_ssize_t before, Py_ssize_t after) noexcept:
    return PoolAxis(size=size, out=out, pool=pool, stride=stride, start=-before, after=after)


cdef Pooling pooling_of(PoolAxis height, PoolAxis width, bint is_max, bint include_pad,
                        bint is_float) noexcept:
    cdef Pooling p
    cdef int i
    memset(&p, 0, sizeof(p))
    p.height, p.width, p.is_max, p.include_pad = height, width, is_max, include_pad
    p.img_size, p.out_size = height.size * width.size, height.out * width.out
    for i in range(1, N_TILES + 1):
        if (height.pool == width.pool == TILE_POOL(i)
                and height.stride == width.stride == TILE_STRIDE(i)):
            p.tile = i
    # To multiply by the inverse of a power of two is exact.
    p.count = height.pool * width.pool
    if p.count & (p.count - 1) or not (fills(&height, include_pad) and fills(&width, include_pad)):
        p.count = 0
    p.in_double = is_float and windows_of_pixel(&height) * windows_of_pixel(&width) > MAX_TERMS
    for i in range(MAX_OFFSETS):
        p.pixel[i] = <int32_t>(i // width.pool * width.size + i % width.pool)
    return p


cdef bint fills(const PoolAxis *axis, bint include_pad) noexcept:
    """Whether no window lacks a pixel."""
    return (pool_count(axis, 0, include_pad) == axis.pool
            and pool_count(axis, axis.out - 1, include_pad) == axis.pool)


cdef Py_ssize_t windows_of_pixel(const PoolAxis *axis) noexcept:
    return min(axis.out, (axis.pool - 1) // axis.stride + 1)


cdef inline Py_ssize_t lanes_of(const PoolPlan *plan) noexcept:
    return VECTOR_BYTES // plan.itemsize


cdef Doubling doubling_of(const PoolPlan *plan) noexcept:
    """The sums of a gradient are those of outputs, spread out, around each pixel."""
    cdef const Pooling *p = &plan.pooling
    cdef Py_ssize_t lanes = lanes_of(plan), rows
    cdef Doubling d
    d.height, d.width, d.spread_y, d.spread_x = p.height, p.width, 1, 1
    if plan.is_backward:
        d.height, d.width = spread_axis(&p.height), spread_axis(&p.width)
        d.spread_y, d.spread_x = p.height.stride, p.width.stride
    d.cells = (d.width.out - 1) * d.width.stride + d.width.pool
    d.line = d.cells + d.width.pool + 3 * lanes
    d.pitch = (d.width.out + lanes - 1) // lanes * lanes
    rows = BLOCK_BYTES // (2 * plan.itemsize * d.pitch) // d.height.stride
    d.block = min(max(rows - d.height.pool, d.height.pool, 1), d.height.out)
    d.rows = (d.block - 1) * d.height.stride + d.height.pool
    return d


cdef PoolAxis spread_axis(const PoolAxis *axis) noexcept:
    cdef Py_ssize_t size = (axis.out - 1) * axis.stride + 1
    return pool_axis(size, axis.size, axis.pool, 1, axis.start + axis.pool - 1, 0)


# --- estimates: linear in the vectors that are read, fitted to timings of 18 poolings --------

cdef Estimate windows_estimate(const PoolPlan *plan) noexcept:
    """Rows of maxima that fill no vector take branches for each pixel."""
    cdef const PoolAxis *height = &plan.pooling.height
    cdef const PoolAxis *width = &plan.pooling.width
    cdef double n_rows = min(height.pool, height.size), n = min(width.pool, width.size), row
    if width.out == 1 and width.start + width.pool >= width.size:
        n, n_rows = n * n_rows, 1
    row = 12 + 2 * n / lanes_of(plan)
    if plan.pooling.is_max:
        row = 60 * n if n < lanes_of(plan) else row + 10
    return Estimate(plan.pooling.out_size * (20 + n_rows * row), 0)


cdef Estimate strips_estimate(const PoolPlan *plan) noexcept:
    """Sums are short, and offsets bytes. Rows of any windows are in scratch, with offsets."""
    cdef const Pooling *p = &plan.pooling
    cdef Py_ssize_t outputs = (lanes_of(plan) - 1) // p.width.stride + 1
    cdef double n_strips = (p.width.out + outputs - 1) // outputs, more = 2 if p.tile else 10
    cdef double tap = 0.9 if plan.switches == NO_SWITCHES else 1.6
    if p.tile == 0:
        tap = 6 if p.is_max else 2
    if p.width.pool > MAX_STRIP_WIDTH or (
            p.height.pool > MAX_TERMS if plan.switches == NO_SWITCHES
            else p.height.pool * p.width.pool > MAX_OFFSETS):
        return Estimate(-1, 0)
    return Estimate(n_strips * (30 + p.height.size * p.width.pool * tap
                                + p.height.out * (p.height.pool * tap + more)),
                    0 if p.tile else 2 * VECTOR_BYTES * p.height.size)


cdef Estimate doubling_estimate(const PoolPlan *plan) noexcept:
    """Without switches. The padding that is copied has to be in proportion."""
    cdef const Pooling *p = &plan.pooling
    cdef const Doubling *d = &p.doubling
    cdef double steps = log2(d.height.pool) + log2(d.width.pool), lanes = lanes_of(plan)
    cdef Py_ssize_t n_rows = (d.height.out - 1) * d.height.stride + d.height.pool
    cdef Py_ssize_t in_scratch = (2 * d.rows + d.height.pool + 1) * d.pitch + 3 * d.line
    if (p.is_max and (plan.switches != NO_SWITCHES or plan.is_backward)
            or max(p.height.pool, p.height.stride) > 4 * p.height.size
            or max(p.width.pool, p.width.stride) > 4 * p.width.size):
        return Estimate(-1, 0)
    if not p.is_max:
        steps *= 1.8
    return Estimate(200 + n_rows * (35 + (d.cells / lanes + 1) * (14 + 4.5 * steps)),
                    plan.itemsize * (p.out_size + 16 + in_scratch) + VECTOR_BYTES)


cdef Estimate scatter_estimate(const PoolPlan *plan) noexcept:
    cdef const Pooling *p = &plan.pooling
    cdef double each = 6
    if not p.is_max:      # sums of a pixel wait for each other
        each = 1.5 if windows_of_pixel(&p.height) * windows_of_pixel(&p.width) == 1 else 8
        each = 15 + each * min(p.height.pool, p.height.size) * min(p.width.pool, p.width.size)
    return Estimate(15 + p.img_size / 4 + each * p.out_size,
                    p.img_size * sizeof(double) if p.in_double else 0)


cdef Estimate whole_estimate(const PoolPlan *plan) noexcept:
    """A single window of all pixels; or a single pair, which says all."""
    cdef const PoolAxis *height = &plan.pooling.height
    cdef const PoolAxis *width = &plan.pooling.width
    if plan.pooling.out_size > 1 or plan.switches != PAIRS and (
            height.start + height.pool < height.size or width.start + width.pool < width.size):
        return Estimate(-1, 0)
    return Estimate(20 + 2 * plan.pooling.img_size / lanes_of(plan), 0)


cdef Estimate gather_estimate(const PoolPlan *plan) noexcept:
    cdef const Pooling *p = &plan.pooling
    cdef Py_ssize_t n_strips = (p.width.size - 1) // lanes_of(plan) + 1
    cdef double tap = 1.6 if p.is_max else 1
    if not plan.is_known or p.tile == 0:
        return Estimate(-1, 0)
    return Estimate(n_strips * (10 + p.height.size * (4 + p.width.pool * p.height.pool * tap)), 0)


# --- the tables -------------------------------------------------------------------------

cdef enum:
    N_FORWARD = 3
    N_BACKWARD = 4

cdef PoolImplementation FORWARD[N_FORWARD]
cdef PoolImplementation BACKWARD[N_BACKWARD]
FORWARD[0] = PoolImplementation(
    "strips", strips_estimate, [pool_strips32, pool_strips64], True)
FORWARD[1] = PoolImplementation(
    "windows", windows_estimate, [pool_windows32, pool_windows64], False)
FORWARD[2] = PoolImplementation(
    "doubling", doubling_estimate, [pool_doubling32, pool_doubling64], False)
BACKWARD[0] = PoolImplementation(
    "gather", gather_estimate, [unpool_gather32, unpool_gather64], True)
BACKWARD[1] = PoolImplementation(
    "scatter", scatter_estimate, [unpool_scatter32, unpool_scatter64], False)
BACKWARD[2] = PoolImplementation(
    "whole", whole_estimate, [unpool_whole32, unpool_whole64], False)
BACKWARD[3] = PoolImplementation(
    "doubling", doubling_estimate, [unpool_doubling32, unpool_doubling64], False)


cdef list explain_plan(const PoolPlan *plan):
    """(name, cycles of a plane, or None where it is not accepted) of each implementation."""
    cdef const PoolImplementation *table = &BACKWARD[0] if plan.is_backward else &FORWARD[0]
    cdef list found = []
    cdef int i
    for i in range(N_BACKWARD if plan.is_backward else N_FORWARD):
        cycles = table[i].estimate(plan).cycles
        found.append((table[i].name.decode(), cycles if cycles >= 0 else None))
    return found


cdef PoolPlan plan_of(
    PoolAxis height, PoolAxis width, Py_ssize_t n_channels, bint is_max, bint include_pad,
    bint is_known, Switching switches, Py_ssize_t itemsize, bint is_backward,
) noexcept:
    """The plan but for its implementation."""
    cdef PoolPlan plan
    cdef Pooling p = pooling_of(height, width, is_max, include_pad, itemsize == sizeof(float))
    if not is_known:          # more than every second pixel is a maximum: some may be of many
        p.in_double = (itemsize == sizeof(float) and p.out_size > MAX_TERMS
                       and (2 * height.out > height.size or 2 * width.out > width.size))
    plan.pooling, plan.itemsize, plan.n_channels = p, itemsize, n_channels
    plan.switches, plan.is_known, plan.is_backward = switches, is_known, is_backward
    plan.source_size, plan.target_size = p.img_size, p.out_size
    if is_backward:
        plan.source_size, plan.target_size = p.out_size, p.img_size
    plan.group = max(1, GROUP_BYTES // (itemsize * p.img_size))
    plan.pooling.doubling = doubling_of(&plan)
    return plan


cdef PoolPlan choose_implementation(PoolPlan plan, str algorithm) except *:
    """The plan with the fastest implementation that accepts it, or the one of a name."""
    cdef list found = explain_plan(&plan)
    cdef dict accepting = {name: cycles for name, cycles in found if cycles is not None}
    if algorithm and algorithm not in accepting:
        raise ValueError(
            f"algorithm is {algorithm!r}, expected one of {(None, *accepting)} for this pooling"
        )
    cdef str name = algorithm or min(accepting, key=accepting.get)
    cdef int of = 0 if plan.itemsize == sizeof(float) else 1
    cdef const PoolImplementation *it = &BACKWARD[0] if plan.is_backward else &FORWARD[0]
    it += [each for each, _ in found].index(name)
    plan.run, plan.by_offsets = it.run[of], it.in_lanes
    plan.slack = 0
    if it.in_lanes and not MASKED_READS:
        plan.slack = plan.pooling.width.pool + lanes_of(&plan)
    plan.scratch = it.estimate(&plan).scratch
    return plan
