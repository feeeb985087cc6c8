"""Printers of the kernel IR: one a language, the same kernels for both."""
