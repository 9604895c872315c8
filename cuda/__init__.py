"""Native kernels for CPU and CUDA with a plain C ABI: sources, their build at first use, and how they are called."""
