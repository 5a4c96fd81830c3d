// What the kernels share. The same sources are compiled by NVRTC for a GPU and, in the tests, by a C++ compiler for the CPU.
//
// Planes are H x W floats, row after row; a batch of them lies one after the other. Every kernel takes whole batches: the pair,
// image or plane that a block works on is blockIdx.z, and no block looks at another one's. So a result depends on no neighbour.
// Products that are summed are written as fmaf, and the compiler contracts nothing by itself: two kernels that share a
// function give the same bits.
#pragma once

// The CPU has no such memory of a size that is known at the launch only, and defines this in its own way.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

struct Pixel {
    int x, y;
};

__device__ __forceinline__ Pixel own_pixel() {
    return {static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y)};
}

__device__ __forceinline__ int clamp(int value, int low, int high) {
    return min(max(value, low), high);
}

// Where plane number `plane` of a batch begins.
__device__ __forceinline__ size_t plane_start(int plane, int height, int width) {
    return static_cast<size_t>(plane) * height * width;
}
