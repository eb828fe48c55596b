# A convolution as a step of a program. Needs conv/implementations.pxi and common/follow.pxi.


cdef class ConvStep(Step):
    """The forward pass of a layer for images of one shape, with its weights packed.

    Parameters
    ----------
    layer : Conv or DepthwiseConv
        That has weights.
    norm : BatchNorm or None
        Whose running statistics, gamma and beta become part of the weights.
    imgs_shape : tuple
    with_relu : bool
    geometry : dict
        The options of `conv_bc01`.
    """

    cdef CorrelationPlan plan
    cdef Correlating job
    cdef cnp.ndarray packed
    cdef Followed followed

    def __init__(self, layer, norm, tuple imgs_shape, bint with_relu, dict geometry):
        self.plan = correlation_plan(
            False, np.empty((0, *imgs_shape[1:]), layer.W.dtype), layer.W, layer.groups,
            geometry["strides"], geometry["padding_mode"], geometry["border_mode"],
            geometry["dilation"], None)
        self.followed = Followed(layer, norm, self.plan.filters_shape, (-1, 1, 1))
        self.out_bytes = cnp.PyArray_ITEMSIZE(layer.W)
        for n in self.plan.out_shape:
            self.out_bytes *= n
        self.packed = np.empty(self.plan.packed_bytes() + 64, np.uint8)
        self.job = self.plan.correlating()
        self.job.with_relu = with_relu
        self.job.packed = <void *>(
            (<size_t>cnp.PyArray_DATA(self.packed) + 63) // 64 * 64)
        self.call.run, self.call.scratch, self.call.plan = conv_run, conv_scratch, &self.job
        self.call.products = self.plan.products

    cdef int follow(self) except -1:
        cdef tuple arrays = self.followed.changed()
        if arrays is not None:
            self.plan.pack(data_of(arrays[0]), data_of(arrays[1]), <void *>self.job.packed)
        return 0


cdef void conv_run(const void *plan, const void *src, const void *other, void *dst,
                   Py_ssize_t n_imgs, void *scratch, int n_threads) noexcept nogil:
    cdef const Correlating *job = <const Correlating *>plan
    correlate(job, src, dst, n_imgs, scratch, n_threads)


cdef Py_ssize_t conv_scratch(const void *plan, Py_ssize_t n_imgs, int n_threads) noexcept nogil:
    return correlation_scratch(<const Correlating *>plan, n_threads)
