// MM-COF, one block a clip, along x. In double throughout, like its twins: magnitudes range over many orders (a flow's tail is tiny),
// their squares would leave float, and all of it is a small part of the work.
#include "common.cuh"

constexpr int THREADS = 512;

struct Modulation {
    double alpha, beta, k;
    bool on, hard;
};

struct Smaller {
    __device__ double operator()(double a, double b) const { return fmin(a, b); }
};

struct Larger {
    __device__ double operator()(double a, double b) const { return fmax(a, b); }
};

struct Sum {
    __device__ double operator()(double a, double b) const { return a + b; }
};

// The values of all threads combined, always in the same order; every thread gets the result.
template <class Operation>
__device__ double combine_all(double value, double* parts, Operation operation) {
    parts[threadIdx.x] = value;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            parts[threadIdx.x] = operation(parts[threadIdx.x], parts[threadIdx.x + half]);
        }
    }
    __syncthreads();
    const double result = parts[0];
    __syncthreads();
    return result;
}

// One phase of one clip: its flow, and what its magnitude is scaled by. A phase without motion has scale 0.
struct Phase {
    const float* u;
    const float* v;
    double low, scale;

    __device__ double magnitude(int i) const {
        const double x = u[i], y = v[i];
        return sqrt(x * x + y * y);
    }
    __device__ double weighted(int i) const { return scale == 0.0 ? 0.0 : (magnitude(i) - low) * scale; }
};

__device__ Phase scaled_phase(const float* flow, const unsigned char* region, int size, double weight, double floor_px,
                              double* parts) {
    Phase phase{flow, flow + size, 0.0, 0.0};
    double low = 1e300, high = 0.0;
    for (int i = threadIdx.x; i < size; i += THREADS) {
        if (region[i]) {
            low = fmin(low, phase.magnitude(i));
            high = fmax(high, phase.magnitude(i));
        }
    }
    low = combine_all(low, parts, Smaller());
    high = combine_all(high, parts, Larger());
    phase.low = low;
    phase.scale = high - low < floor_px || high == low ? 0.0 : weight / (high - low);
    return phase;
}

// t: mean of M_c plus c standard deviations, over the region.
__device__ double strong_motion(const Phase& rise, const Phase& fall, const unsigned char* region, int size, double c,
                                double* parts) {
    double sum = 0.0, count = 0.0;
    for (int i = threadIdx.x; i < size; i += THREADS) {
        if (region[i]) {
            sum += rise.weighted(i) + fall.weighted(i);
            count += 1.0;
        }
    }
    count = combine_all(count, parts, Sum());
    const double mean = combine_all(sum, parts, Sum()) / count;
    double squares = 0.0;
    for (int i = threadIdx.x; i < size; i += THREADS) {
        if (region[i]) {
            const double deviation = rise.weighted(i) + fall.weighted(i) - mean;
            squares += deviation * deviation;
        }
    }
    return mean + c * sqrt(combine_all(squares, parts, Sum()) / count);
}

// 0 below the threshold, 1 above it; the sigmoid in a form that cannot overflow.
__device__ double gate(double excess, const Modulation& modulation) {
    if (modulation.hard) {
        return excess >= 0.0 ? 1.0 : 0.0;
    }
    return 0.5 + 0.5 * tanh(0.5 * modulation.k * excess);
}

__device__ double modulated_magnitude(double combined, double threshold, const Modulation& modulation) {
    if (modulation.on) {
        combined *= modulation.beta + (modulation.alpha - modulation.beta) * gate(combined - threshold, modulation);
    }
    return fmin(fmax(combined, 0.0), 1.0);
}

// The cosine and sine of the angle of (x, y); the angle of nothing is 0, as atan2 has it.
__device__ double2 unit(double x, double y) {
    const double length = sqrt(x * x + y * y);
    return length > 0.0 ? make_double2(x / length, y / length) : make_double2(1.0, 0.0);
}

// fall_sign: -1 turns the fall round before the two are added, 1 does not, 0 leaves it out.
__device__ double2 direction(const Phase& rise, const Phase& fall, int i, double fall_sign) {
    const double2 of_rise = unit(rise.u[i], rise.v[i]);
    if (fall_sign == 0.0) {
        return of_rise;
    }
    const double2 of_fall = unit(fall.u[i], fall.v[i]);
    const double m = rise.weighted(i), n = fall_sign * fall.weighted(i);
    return unit(m * of_rise.x + n * of_fall.x, m * of_rise.y + n * of_fall.y);
}

// (2 phases, 2 components, H, W) -> M' cos a, M' sin a, M' of each clip; `size` is H W. One region serves all clips where
// `region_step` is 0, and each has its own where it is `size`. A block is THREADS threads.
extern "C" __global__ void __launch_bounds__(THREADS)
    mmcof(const float* __restrict__ flow, const unsigned char* __restrict__ region, float* __restrict__ combined, int size,
          int region_step,
          double theta_1, double theta_2, double alpha, double beta, double k, double c, double floor_px, double fall_sign,
          int modulate, int hard) {
    __shared__ double parts[THREADS];
    const size_t clip = blockIdx.x;
    flow += 4 * clip * size;
    region += clip * region_step;
    combined += 3 * clip * size;
    const Modulation modulation{alpha, beta, k, modulate != 0, hard != 0};
    const Phase rise = scaled_phase(flow, region, size, theta_1, floor_px, parts);
    const Phase fall = scaled_phase(flow + 2 * size, region, size, theta_2, floor_px, parts);
    const double threshold = strong_motion(rise, fall, region, size, c, parts);
    for (int i = threadIdx.x; i < size; i += THREADS) {
        const double magnitude = modulated_magnitude(rise.weighted(i) + fall.weighted(i), threshold, modulation);
        const double2 towards = direction(rise, fall, i, fall_sign);
        combined[i] = magnitude * towards.x;
        combined[size + i] = magnitude * towards.y;
        combined[2 * size + i] = magnitude;
    }
}
