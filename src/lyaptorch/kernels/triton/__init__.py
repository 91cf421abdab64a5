"""Kernels in Triton; nothing here is imported until a state lies on a GPU, or a backend is asked for."""
