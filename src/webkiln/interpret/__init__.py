"""The definition of the kernel IR that runs: NumPy for computations, plain Python for scheduled
kernels.
"""
