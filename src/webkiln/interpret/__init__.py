"""The kernel IR's living definition: NumPy for computations, Python for scheduled kernels."""
