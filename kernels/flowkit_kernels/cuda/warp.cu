// The data term: the moving image and its gradient, warped by the flow. A texel holds J, Jx, Jy of one pixel side by side, so
// that each of the 16 taps of the bicubic warp is one load.
#include "common.cuh"

constexpr float EPSILON = 1.1920929e-7f;  // |gradient|^2 is at least this

struct Taps {
    int at[4];
    float weight[4];
};

// The four pixels around a coordinate and their weights (A = -0.75); a pixel outside the image weighs nothing.
__device__ __forceinline__ Taps cubic_taps(float coordinate, int size) {
    const float a = -0.75f;
    const float corner = floorf(coordinate);
    const float t = coordinate - corner, s = 1.0f - t, after = t + 1.0f;
    Taps taps;
    taps.weight[0] = fmaf(fmaf(fmaf(a, after, -5.0f * a), after, 8.0f * a), after, -4.0f * a);
    taps.weight[1] = fmaf(fmaf(a + 2.0f, t, -(a + 3.0f)) * t, t, 1.0f);
    taps.weight[2] = fmaf(fmaf(a + 2.0f, s, -(a + 3.0f)) * s, s, 1.0f);
    taps.weight[3] = 1.0f - taps.weight[0] - taps.weight[1] - taps.weight[2];
    const int first = static_cast<int>(fminf(fmaxf(corner, -3.0f), size + 1.0f)) - 1;  // further out all weigh nothing
#pragma unroll
    for (int i = 0; i < 4; i++) {
        taps.weight[i] = first + i >= 0 && first + i < size ? taps.weight[i] : 0.0f;
        taps.at[i] = clamp(first + i, 0, size - 1);
    }
    return taps;
}

__device__ __forceinline__ float4 warped_texel(const float4* __restrict__ texels, int width, const Taps& x, const Taps& y) {
    float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float4* row = texels + static_cast<size_t>(y.at[j]) * width;
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float4 texel = row[x.at[i]];
            sum.x = fmaf(x.weight[i], texel.x, sum.x);
            sum.y = fmaf(x.weight[i], texel.y, sum.y);
            sum.z = fmaf(x.weight[i], texel.z, sum.z);
        }
        total.x = fmaf(y.weight[j], sum.x, total.x);
        total.y = fmaf(y.weight[j], sum.y, total.y);
        total.z = fmaf(y.weight[j], sum.z, total.z);
    }
    return total;
}

// J, Jx, Jy of each pair's moving image: central differences, replicated at the border. `pairs` holds for each pair the number
// of its reference and of its moving image.
extern "C" __global__ void gradient_texels(const float* __restrict__ images, const int* __restrict__ pairs,
                                           float4* __restrict__ texels, int height, int width) {
    const Pixel own = own_pixel();
    if (own.x >= width || own.y >= height) {
        return;
    }
    const float* image = images + plane_start(pairs[2 * blockIdx.z + 1], height, width);
    const float* row = image + own.y * width;
    const float left = row[max(own.x - 1, 0)], right = row[min(own.x + 1, width - 1)];
    const float above = image[max(own.y - 1, 0) * width + own.x];
    const float below = image[min(own.y + 1, height - 1) * width + own.x];
    texels[plane_start(blockIdx.z, height, width) + own.y * width + own.x] =
        make_float4(row[own.x], 0.5f * (right - left), 0.5f * (below - above), 0.0f);
}

// Jx, Jy, the constant J(x + flow) - gradient . flow - I, and 1 / |gradient|^2, of each pair.
extern "C" __global__ void linearise(const float2* __restrict__ flow, const float* __restrict__ images,
                                     const int* __restrict__ pairs, const float4* __restrict__ texels,
                                     float4* __restrict__ data_term, int height, int width, int round_coordinates) {
    const Pixel own = own_pixel();
    if (own.x >= width || own.y >= height) {
        return;
    }
    const int pair = blockIdx.z;
    const size_t start = plane_start(pair, height, width), i = start + own.y * width + own.x;
    const float u = flow[i].x, v = flow[i].y;
    float x = own.x + u, y = own.y + v;
    if (round_coordinates) {
        x = rintf(x * 32.0f) * 0.03125f;
        y = rintf(y * 32.0f) * 0.03125f;
    }
    const float4 warped = warped_texel(texels + start, width, cubic_taps(x, width), cubic_taps(y, height));
    const float constant = warped.x - fmaf(warped.y, u, warped.z * v) -
                           images[plane_start(pairs[2 * pair], height, width) + own.y * width + own.x];
    const float norm = fmaxf(fmaf(warped.y, warped.y, warped.z * warped.z), EPSILON);
    data_term[i] = make_float4(warped.y, warped.z, constant, __fdividef(1.0f, norm));
}
