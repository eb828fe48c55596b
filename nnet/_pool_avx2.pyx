include "_pool.pyx"
