"""Native kernels with a plain C ABI, built on first use: CPU now, CUDA later."""
