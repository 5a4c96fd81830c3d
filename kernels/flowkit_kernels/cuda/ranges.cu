// Smallest and largest value of each item of a batch, so that what a caller hands over on the GPU can be checked there. A block
// an item, along x: there may be more of them than a grid has places along z.
#include "common.cuh"

constexpr int THREADS = 1024;

// Like fmin and fmax, but NaN wins: a single one must show.
__device__ float smaller(float a, float b) {
    return a < b || a != a ? a : b;
}

__device__ float larger(float a, float b) {
    return a > b || a != a ? a : b;
}

template <class Value>
__device__ void store_range(const Value* __restrict__ values, float* __restrict__ limits, int size) {
    __shared__ float lows[THREADS], highs[THREADS];
    const Value* item = values + static_cast<size_t>(blockIdx.x) * size;
    float low = item[0], high = item[0];
    for (int i = threadIdx.x; i < size; i += THREADS) {
        low = smaller(item[i], low);
        high = larger(item[i], high);
    }
    lows[threadIdx.x] = low;
    highs[threadIdx.x] = high;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            lows[threadIdx.x] = smaller(lows[threadIdx.x + half], lows[threadIdx.x]);
            highs[threadIdx.x] = larger(highs[threadIdx.x + half], highs[threadIdx.x]);
        }
    }
    if (threadIdx.x == 0) {
        limits[2 * blockIdx.x] = lows[0];
        limits[2 * blockIdx.x + 1] = highs[0];
    }
}

// A block is THREADS threads.
extern "C" __global__ void __launch_bounds__(THREADS)
    ranges(const float* __restrict__ values, float* __restrict__ limits, int size) {
    store_range(values, limits, size);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    ranges_of_mask(const unsigned char* __restrict__ values, float* __restrict__ limits, int size) {
    store_range(values, limits, size);
}
