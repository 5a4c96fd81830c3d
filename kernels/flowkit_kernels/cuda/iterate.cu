// TV-L1's inner iterations, several in one launch.
//
// A block loads a tile of the image, iterates on it without touching memory, and stores the part that it owns. What a pixel
// needs comes one pixel closer with each iteration, so a tile reaches `halo` >= iterations beyond what it owns, except at the
// image's border. Each thread holds ROWS pixels of one column in registers; neighbours along y are in the same thread or in
// the one above or below, neighbours along x are exchanged through shared memory.
//
// Of the dual variables, theta times p is kept: p11, p12 of u along x and y, p21, p22 of v. What belongs to a pixel lies together:
// flow (u, v), dual (p11, p12, p21, p22), data term (Jx, Jy, constant, 1 / |gradient|^2).
#include "common.cuh"

#if !defined(ROWS) || !defined(PITCH)
#error "the host says how many rows a thread holds, and how far rows of shared memory lie apart"
#endif
constexpr int MAX_THREADS = 512;
constexpr int LANES = 32;  // partial sums of a tile's squared updates

struct Level {
    int height, width;
};

struct Tiling {
    int own_height, own_width, halo;
};

struct Rates {
    float limit, tau, rate;  // lambda theta, tau, tau / theta
};

// The dual pair of one component after its step: along the gradient, back into the ball.
__device__ __forceinline__ float2 dual_step(float2 p, float along_x, float along_y, const Rates& rates) {
    const float length = sqrtf(fmaf(along_x, along_x, along_y * along_y));
    const float shrink = __fdividef(1.0f, fmaf(rates.rate, length, 1.0f));
    return make_float2(fmaf(rates.tau, along_x, p.x) * shrink, fmaf(rates.tau, along_y, p.y) * shrink);
}

// Shared memory of a block of bx x by threads, in float2. Rows of PITCH > bx, so that a neighbour exists on one side of each
// pixel; known to the compiler, so that each of a thread's rows is a fixed distance from its first.
struct Exchange {
    float2* dual_along_x;  // [by ROWS][PITCH]: (p11, p21), shifted by one: column 0 lies left of the tile
    float2* flow;          // [by ROWS][PITCH]: (u, v); column bx lies right of the tile
    float2* dual_above;    // [by + 1][PITCH]: (p12, p22) of each thread's last row; row 0 lies above the tile
    float2* flow_below;    // [by + 1][PITCH]: (u, v) of each thread's first row; row by lies below the tile
    float* updates;        // [by bx]: squared updates, where they are watched
};

__device__ __forceinline__ Exchange lay_out(float2* memory) {
    const int wide = blockDim.y * ROWS * PITCH, edge = (blockDim.y + 1) * PITCH;
    Exchange exchange;
    exchange.dual_along_x = memory;
    exchange.flow = memory + wide;
    exchange.dual_above = memory + 2 * wide;
    exchange.flow_below = memory + 2 * wide + edge;
    exchange.updates = reinterpret_cast<float*>(memory + 2 * wide + 2 * edge);
    return exchange;
}

// Beyond the image the dual variables are zero; beyond a tile inside the image any finite value will do, which the halo absorbs.
__device__ __forceinline__ void clear_edges(const Exchange& exchange) {
    const int bx = blockDim.x, tx = threadIdx.x, ty = threadIdx.y;
    const float2 zero = make_float2(0.0f, 0.0f);
    if (tx == 0) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int row = (ty * ROWS + r) * PITCH;
            exchange.dual_along_x[row] = zero;
            exchange.flow[row + bx] = zero;
        }
    }
    if (ty == 0) {
        exchange.dual_above[tx] = zero;
        exchange.flow_below[blockDim.y * PITCH + tx] = zero;
    }
}

// `iterations` of them on one pair. WATCH also stores the sum of squared updates over what each tile owns, in LANES parts:
// updates[iteration][tile][lane].
template <bool WATCH>
__device__ __forceinline__ void iterate_tile(const float2* __restrict__ flow_in, const float4* __restrict__ dual_in,
                                             const float4* __restrict__ data_term, float2* __restrict__ flow_out,
                                             float4* __restrict__ dual_out, const Level level, const Tiling tiling,
                                             const Rates rates, int iterations, float* __restrict__ updates) {
    DYNAMIC_SHARED(float2, memory);
    const Exchange exchange = lay_out(memory);
    const int tx = threadIdx.x, ty = threadIdx.y, row = ty * ROWS * PITCH + tx;
    const int first_x = blockIdx.x * tiling.own_width, first_y = blockIdx.y * tiling.own_height;
    const int x = first_x - (blockIdx.x ? tiling.halo : 0) + tx;
    const int y = first_y - (blockIdx.y ? tiling.halo : 0) + ty * ROWS;
    const bool last_column = x >= level.width - 1;
    const bool own_column = x >= first_x && x < min(first_x + tiling.own_width, level.width);
    const int end_y = min(first_y + tiling.own_height, level.height);

    float u[ROWS], v[ROWS], jx[ROWS], jy[ROWS], inverse[ROWS], constant[ROWS];
    float p11[ROWS], p12[ROWS], p21[ROWS], p22[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const bool inside = x < level.width && y + r < level.height;
        const int i = (y + r) * level.width + x;
        const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        const float2 flow = inside ? flow_in[i] : make_float2(0.0f, 0.0f);
        const float4 dual = inside ? dual_in[i] : zero;
        const float4 data = inside ? data_term[i] : zero;
        u[r] = flow.x;
        v[r] = flow.y;
        p11[r] = dual.x;
        p12[r] = dual.y;
        p21[r] = dual.z;
        p22[r] = dual.w;
        jx[r] = data.x;
        jy[r] = data.y;
        constant[r] = data.z;
        inverse[r] = data.w;
    }
    clear_edges(exchange);

#pragma unroll 1
    for (int iteration = 0; iteration < iterations; iteration++) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            exchange.dual_along_x[row + r * PITCH + 1] = make_float2(p11[r], p21[r]);
        }
        exchange.dual_above[(ty + 1) * PITCH + tx] = make_float2(p12[ROWS - 1], p22[ROWS - 1]);
        __syncthreads();

        // primal step: towards rho = 0 by at most limit |gradient|, then down the total variation by its dual
        float2 above = exchange.dual_above[ty * PITCH + tx];
        float update = 0.0f;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float2 left = exchange.dual_along_x[row + r * PITCH];
            const float rho = fmaf(jx[r], u[r], fmaf(jy[r], v[r], constant[r]));
            const float step = fminf(fmaxf(-rho * inverse[r], -rates.limit), rates.limit);
            const float du = fmaf(step, jx[r], (p11[r] - left.x) + (p12[r] - above.x));
            const float dv = fmaf(step, jy[r], (p21[r] - left.y) + (p22[r] - above.y));
            u[r] += du;
            v[r] += dv;
            above = make_float2(p12[r], p22[r]);
            exchange.flow[row + r * PITCH] = make_float2(u[r], v[r]);
            if (WATCH && own_column && y + r >= first_y && y + r < end_y) {
                update += fmaf(du, du, dv * dv);
            }
        }
        exchange.flow_below[ty * PITCH + tx] = make_float2(u[0], v[0]);
        if (WATCH) {
            exchange.updates[ty * blockDim.x + tx] = update;
        }
        __syncthreads();

        // dual step: forward differences, zero at the image's last column and row
        float2 below = exchange.flow_below[(ty + 1) * PITCH + tx];
#pragma unroll
        for (int r = ROWS - 1; r >= 0; r--) {
            const float2 right = exchange.flow[row + r * PITCH + 1];
            const bool last_row = y + r >= level.height - 1;
            const float2 of_u = dual_step(make_float2(p11[r], p12[r]), last_column ? 0.0f : right.x - u[r],
                                          last_row ? 0.0f : below.x - u[r], rates);
            const float2 of_v = dual_step(make_float2(p21[r], p22[r]), last_column ? 0.0f : right.y - v[r],
                                          last_row ? 0.0f : below.y - v[r], rates);
            p11[r] = of_u.x;
            p12[r] = of_u.y;
            p21[r] = of_v.x;
            p22[r] = of_v.y;
            below = make_float2(u[r], v[r]);
        }
        const int thread = ty * blockDim.x + tx;
        if (WATCH && thread < LANES) {
            float sum = 0.0f;
            for (int i = thread; i < static_cast<int>(blockDim.x * blockDim.y); i += LANES) {
                sum += exchange.updates[i];
            }
            const int tile = blockIdx.y * gridDim.x + blockIdx.x;
            updates[(iteration * gridDim.x * gridDim.y + tile) * LANES + thread] = sum;
        }
    }

#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (own_column && y + r >= first_y && y + r < end_y) {
            const int i = (y + r) * level.width + x;
            flow_out[i] = make_float2(u[r], v[r]);
            dual_out[i] = make_float4(p11[r], p12[r], p21[r], p22[r]);
        }
    }
}

// The fixed schedule: so many iterations on every pair.
extern "C" __global__ void __launch_bounds__(MAX_THREADS)
    iterate(const float2* __restrict__ flow_in, const float4* __restrict__ dual_in, const float4* __restrict__ data_term,
            float2* __restrict__ flow_out, float4* __restrict__ dual_out, int height, int width, int own_height,
            int own_width, int halo, float limit, float tau, float rate, int iterations) {
    const size_t start = plane_start(blockIdx.z, height, width);
    iterate_tile<false>(flow_in + start, dual_in + start, data_term + start, flow_out + start, dual_out + start,
                        {height, width}, {own_height, own_width, halo}, {limit, tau, rate}, iterations, nullptr);
}

// With a look at the updates: `counts[pair]` times `iterations` of them, which may be none. updates[pair][iteration][tile][lane]
// has room for `iterations_at_most`.
extern "C" __global__ void __launch_bounds__(MAX_THREADS)
    iterate_watched(const float2* __restrict__ flow_in, const float4* __restrict__ dual_in,
                    const float4* __restrict__ data_term, float2* __restrict__ flow_out, float4* __restrict__ dual_out,
                    int height, int width, int own_height, int own_width, int halo, float limit, float tau, float rate,
                    int iterations, const int* __restrict__ counts, float* __restrict__ updates, int iterations_at_most) {
    const int amount = counts[blockIdx.z] * iterations;
    if (amount == 0) {
        return;
    }
    const size_t start = plane_start(blockIdx.z, height, width);
    const size_t sums = static_cast<size_t>(blockIdx.z) * iterations_at_most * gridDim.x * gridDim.y * LANES;
    iterate_tile<true>(flow_in + start, dual_in + start, data_term + start, flow_out + start, dual_out + start,
                       {height, width}, {own_height, own_width, halo}, {limit, tau, rate}, amount, updates + sums);
}

extern "C" __global__ void start_running(int* __restrict__ running, int pairs) {
    const int pair = blockIdx.x * blockDim.x + threadIdx.x;
    if (pair < pairs) {
        running[pair] = 1;
    }
}

constexpr int DECIDERS = 128;

// After `iterations` that were tried: which of them was the first whose sum of squared updates fell to the tolerance? If there
// is one, the pair stops running; `again` says how many iterations it must do over from where the trial began (0: the last one
// was the one), and `ended` that it ended just now. A block is DECIDERS threads.
extern "C" __global__ void decide(const float* __restrict__ updates, int* __restrict__ running, int* __restrict__ again,
                                  int* __restrict__ ended, int sums, int iterations, int iterations_at_most,
                                  float tolerance) {
    __shared__ float parts[DECIDERS];
    const int pair = blockIdx.x, thread = threadIdx.x;
    const bool runs = running[pair] != 0;
    int needed = 0;
    for (int iteration = 0; iteration < iterations && runs && needed == 0; iteration++) {
        const float* of_iteration = updates + (static_cast<size_t>(pair) * iterations_at_most + iteration) * sums;
        float part = 0.0f;
        for (int i = thread; i < sums; i += DECIDERS) {
            part += of_iteration[i];
        }
        parts[thread] = part;
        __syncthreads();
        float total = 0.0f;
        for (int i = 0; i < DECIDERS; i++) {
            total += parts[i];
        }
        needed = total <= tolerance ? iteration + 1 : 0;
        __syncthreads();
    }
    if (thread == 0) {
        running[pair] = runs && needed == 0;
        again[pair] = needed < iterations ? needed : 0;
        ended[pair] = needed > 0;
    }
}

// A pair that has just ended gets its result into both buffers, so that what goes on for others may swap them.
extern "C" __global__ void settle(const float2* __restrict__ flow, const float4* __restrict__ dual,
                                  float2* __restrict__ other_flow, float4* __restrict__ other_dual,
                                  const int* __restrict__ ended, int plane) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (!ended[blockIdx.z] || i >= plane) {
        return;
    }
    const size_t own = static_cast<size_t>(blockIdx.z) * plane + i;
    other_flow[own] = flow[own];
    other_dual[own] = dual[own];
}
