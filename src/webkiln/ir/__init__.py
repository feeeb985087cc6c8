"""The kernel IR: scalar expressions, buffers, computations, scheduled kernels."""
