// One loop, two targets: nvcc makes CUDA kernels of these, a C++ compiler makes OpenMP loops over the same functors. What
// runs on a GPU can so be tested where there is none.
#pragma once
#include "hd.h"

namespace lpm {

using Queue = void*;  // CUDA: the stream; host: the number of threads
constexpr int GROUP = 128;  // threads that work on one sum; halved until one is left

#if defined(__CUDACC__)

template <typename F>
__global__ void run_each(int64_t n, F f) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) f(i);
}

// f(i) for i in 0..n, in any order.
template <typename F>
void for_each(Queue queue, int64_t n, F f) {
    if (n > 0) run_each<<<unsigned((n + 255) / 256), 256, 0, cudaStream_t(queue)>>>(n, f);
}

template <typename F>
__global__ void run_sums(F f) {
    __shared__ typename F::Sum part[GROUP];
    const int t = threadIdx.x;
    typename F::Sum sum = {};
    for (int64_t i = t; i < f.count(blockIdx.x); i += GROUP) f.add(blockIdx.x, i, sum);
    part[t] = sum;
    for (int half = GROUP / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) part[t] += part[t + half];
    }
    if (t == 0) f.finish(blockIdx.x, part[0]);
}

// For each group g in 0..groups: f.add(g, i, sum) for i in 0..f.count(g), then f.finish(g, sum). In the same order every
// time and on both targets, so that sums are the same to the bit.
template <typename F>
void for_each_sum(Queue queue, int64_t groups, F f) {
    if (groups > 0) run_sums<<<unsigned(groups), GROUP, 0, cudaStream_t(queue)>>>(f);
}

#else

template <typename F>
void for_each(Queue queue, int64_t n, F f) {
#pragma omp parallel for schedule(static) num_threads(int(reinterpret_cast<intptr_t>(queue)))
    for (int64_t i = 0; i < n; i++) f(i);
}

template <typename F>
void for_each_sum(Queue queue, int64_t groups, F f) {
#pragma omp parallel for schedule(static) num_threads(int(reinterpret_cast<intptr_t>(queue)))
    for (int64_t g = 0; g < groups; g++) {
        typename F::Sum part[GROUP] = {};
        for (int64_t i = 0; i < f.count(g); i++) f.add(g, i, part[i % GROUP]);
        for (int half = GROUP / 2; half > 0; half /= 2)
            for (int t = 0; t < half; t++) part[t] += part[t + half];
        f.finish(g, part[0]);
    }
}

#endif

// Adds 1 where others may add at the same time; integers, so the order does not matter.
LPM_HD inline void count_one(int64_t* where) {
#if defined(__CUDA_ARCH__)
    atomicAdd(reinterpret_cast<unsigned long long*>(where), 1ull);
#else
#pragma omp atomic
    *where += 1;
#endif
}

}  // namespace lpm
