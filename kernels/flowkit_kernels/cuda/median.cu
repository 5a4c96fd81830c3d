// 5 x 5 median with replicated borders, of each component of the flow of each pair.
#include "common.cuh"

constexpr int TILE_WIDTH = 32, TILE_HEIGHT = 8, REACH = 2;
constexpr int PADDED_WIDTH = TILE_WIDTH + 2 * REACH, PADDED_HEIGHT = TILE_HEIGHT + 2 * REACH;

__device__ __forceinline__ void order(float& low, float& high) {
    const float smaller = fminf(low, high);
    high = fmaxf(low, high);
    low = smaller;
}

__device__ __forceinline__ void sort_5(float (&v)[5]) {
    order(v[0], v[1]);
    order(v[3], v[4]);
    order(v[2], v[4]);
    order(v[2], v[3]);
    order(v[1], v[4]);
    order(v[0], v[3]);
    order(v[0], v[2]);
    order(v[1], v[3]);
    order(v[1], v[2]);
}

// The smallest of the first N to the front, the largest to the back.
template <int N>
__device__ __forceinline__ void bring_out_ends(float (&v)[8]) {
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        order(v[i], v[N - 1 - i]);
    }
#pragma unroll
    for (int i = 1; i < N / 2 + N % 2; i++) {
        order(v[0], v[i]);
    }
#pragma unroll
    for (int i = N / 2; i < N - 1; i++) {
        order(v[i], v[N - 1]);
    }
}

// Of just over half of the values neither the smallest nor the largest can be the median: forget both, take one more.
__device__ __forceinline__ float median_13(const float (&values)[13]) {
    float kept[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        kept[i] = values[i];
    }
    bring_out_ends<8>(kept);
    kept[0] = values[8];
    bring_out_ends<7>(kept);
    kept[0] = values[9];
    bring_out_ends<6>(kept);
    kept[0] = values[10];
    bring_out_ends<5>(kept);
    kept[0] = values[11];
    bring_out_ends<4>(kept);
    kept[0] = values[12];
    bring_out_ends<3>(kept);
    return kept[1];
}

// With the columns sorted, and then each rank over the columns, the value of rank k in its column and i among its rank has
// (k + 1)(i + 1) - 1 values below it and (5 - k)(5 - i) - 1 above. Only 13 can be the median; six of the others lie on each side.
__device__ __forceinline__ float2 median_of_sorted_columns(const float2 (*columns)[PADDED_WIDTH], int x) {
    float of_u[13], of_v[13];
    int found = 0;
#pragma unroll
    for (int k = 0; k < 5; k++) {
        float u[5], v[5];
#pragma unroll
        for (int i = 0; i < 5; i++) {
            const float2 value = columns[k][x + i];
            u[i] = value.x;
            v[i] = value.y;
        }
        sort_5(u);
        sort_5(v);
#pragma unroll
        for (int i = 0; i < 5; i++) {
            if ((k + 1) * (i + 1) <= 13 && (5 - k) * (5 - i) <= 13) {
                of_u[found] = u[i];
                of_v[found++] = v[i];
            }
        }
    }
    return make_float2(median_13(of_u), median_13(of_v));
}

// A block is TILE_WIDTH x TILE_HEIGHT threads, blockIdx.z a pair. Those that `running` marks with 0 are left out.
extern "C" __global__ void __launch_bounds__(TILE_WIDTH* TILE_HEIGHT)
    median(const float2* __restrict__ flow, float2* __restrict__ filtered, const int* __restrict__ running, int height,
           int width) {
    __shared__ float2 padded[PADDED_HEIGHT][PADDED_WIDTH];
    __shared__ float2 sorted[TILE_HEIGHT][5][PADDED_WIDTH];
    if (!running[blockIdx.z]) {
        return;
    }
    const size_t start = plane_start(blockIdx.z, height, width);
    const int left = blockIdx.x * TILE_WIDTH - REACH, top = blockIdx.y * TILE_HEIGHT - REACH;
    const int thread = threadIdx.y * TILE_WIDTH + threadIdx.x, threads = TILE_WIDTH * TILE_HEIGHT;
    for (int i = thread; i < PADDED_HEIGHT * PADDED_WIDTH; i += threads) {
        const int y = i / PADDED_WIDTH, x = i % PADDED_WIDTH;
        padded[y][x] = flow[start + clamp(top + y, 0, height - 1) * width + clamp(left + x, 0, width - 1)];
    }
    __syncthreads();
    for (int i = thread; i < TILE_HEIGHT * PADDED_WIDTH; i += threads) {
        const int y = i / PADDED_WIDTH, x = i % PADDED_WIDTH;
        float u[5], v[5];
#pragma unroll
        for (int k = 0; k < 5; k++) {
            u[k] = padded[y + k][x].x;
            v[k] = padded[y + k][x].y;
        }
        sort_5(u);
        sort_5(v);
#pragma unroll
        for (int k = 0; k < 5; k++) {
            sorted[y][k][x] = make_float2(u[k], v[k]);
        }
    }
    __syncthreads();
    const Pixel own = own_pixel();
    if (own.x < width && own.y < height) {
        filtered[start + own.y * width + own.x] = median_of_sorted_columns(sorted[threadIdx.y], threadIdx.x);
    }
}
