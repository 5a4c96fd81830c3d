// Images into the pyramid, flow from one level to the next, flow out of the solver.
#include "common.cuh"

// Grey values 0..1 of a stack of images to 0..255, each image to its place in the finest level. The stack holds `per_item`
// images of each item; an item has `images_per_item` of them in all, of which this stack's are number `first` and following.
extern "C" __global__ void grey(const float* __restrict__ stack, float* __restrict__ images, int size, int per_item,
                                int images_per_item, int first) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const int source = blockIdx.z;
    const int target = source / per_item * images_per_item + first + source % per_item;
    if (i < size) {
        images[static_cast<size_t>(target) * size + i] = 255.0f * stack[static_cast<size_t>(source) * size + i];
    }
}

// The value at share `at` of the way from the first to the second.
__device__ __forceinline__ float between(float first, float second, float at) {
    return fmaf(second, at, first * (1.0f - at));
}

__device__ __forceinline__ float2 between(float2 first, float2 second, float at) {
    return make_float2(between(first.x, second.x, at), between(first.y, second.y, at));
}

__device__ __forceinline__ float times(float scale, float value) { return scale * value; }

__device__ __forceinline__ float2 times(float scale, float2 value) { return make_float2(scale * value.x, scale * value.y); }

// Bilinear. The host has worked out which two columns (rows) each target pixel lies between, and the weight of the second.
template <typename Value>
__device__ __forceinline__ void resize_plane(const Value* __restrict__ source, Value* __restrict__ target,
                                             const int* __restrict__ columns, const float* __restrict__ right,
                                             const int* __restrict__ rows, const float* __restrict__ bottom,
                                             int source_height, int source_width, int height, int width, float scale) {
    const Pixel own = own_pixel();
    if (own.x >= width || own.y >= height) {
        return;
    }
    const Value* above = source + plane_start(blockIdx.z, source_height, source_width) + rows[own.y] * source_width;
    const Value* below = above + source_width;
    const int column = columns[own.x];
    const float x = right[own.x], y = bottom[own.y];
    const Value upper = between(above[column], above[column + 1], x), lower = between(below[column], below[column + 1], x);
    target[plane_start(blockIdx.z, height, width) + own.y * width + own.x] = times(scale, between(upper, lower, y));
}

extern "C" __global__ void resize(const float* __restrict__ source, float* __restrict__ target,
                                  const int* __restrict__ columns, const float* __restrict__ right,
                                  const int* __restrict__ rows, const float* __restrict__ bottom, int source_height,
                                  int source_width, int height, int width, float scale) {
    resize_plane(source, target, columns, right, rows, bottom, source_height, source_width, height, width, scale);
}

extern "C" __global__ void resize_flow(const float2* __restrict__ source, float2* __restrict__ target,
                                       const int* __restrict__ columns, const float* __restrict__ right,
                                       const int* __restrict__ rows, const float* __restrict__ bottom, int source_height,
                                       int source_width, int height, int width, float scale) {
    resize_plane(source, target, columns, right, rows, bottom, source_height, source_width, height, width, scale);
}

extern "C" __global__ void clear(float* __restrict__ planes, int size) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) {
        planes[static_cast<size_t>(blockIdx.z) * size + i] = 0.0f;
    }
}

// Both components of each pair, one plane after the other, to the place that the caller wants them in; `size` is that of a plane.
extern "C" __global__ void leave(const float2* __restrict__ flow, float* __restrict__ result, const int* __restrict__ places,
                                 int size) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) {
        const float2 motion = flow[static_cast<size_t>(blockIdx.z) * size + i];
        float* target = result + static_cast<size_t>(places[blockIdx.z]) * 2 * size + i;
        target[0] = motion.x;
        target[size] = motion.y;
    }
}
