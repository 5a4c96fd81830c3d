// The part of CUDA C that the kernels use, on one thread of an x86-64 CPU.
//
// Each CUDA thread is a fiber. A block runs in rounds: every fiber in turn, in the order of the launch, until it waits at a
// barrier or ends. So what a kernel reads before a barrier that should have come after it depends on the order, and a
// race shows as two answers. All memory that a GPU would hand out with leftovers in it is handed out as NaN.
//
// `runner.py` appends one `LAUNCHER` for each kernel that it finds.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>
#include <vector>

#ifndef __x86_64__
#error "the fibers switch by x86-64 assembly"
#endif

#if defined(__SANITIZE_ADDRESS__)
#define CUDA_ON_CPU_UNCHECKED __attribute__((no_sanitize_address))
#else
#define CUDA_ON_CPU_UNCHECKED
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Words of the language

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ __attribute__((section("shared_memory"))) static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __syncthreads() cuda_on_cpu::wait(__LINE__)
#define __syncthreads_count(predicate) cuda_on_cpu::vote(__LINE__, (predicate) != 0).votes
#define __syncthreads_or(predicate) (cuda_on_cpu::vote(__LINE__, (predicate) != 0).votes > 0)
#define __syncthreads_and(predicate) (cuda_on_cpu::vote(__LINE__, (predicate) == 0).votes == 0)
#define CUDA_ON_CPU_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(cuda_on_cpu::dynamic_shared)

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    unsigned size() const { return x * y * z; }
};

#define VECTOR_TYPES(scalar, base)                                                                                     \
    struct alignas(2 * sizeof(scalar)) base##2 {                                                                       \
        scalar x, y;                                                                                                   \
    };                                                                                                                 \
    struct base##3 {                                                                                                   \
        scalar x, y, z;                                                                                                \
    };                                                                                                                 \
    struct alignas(sizeof(scalar) < 8 ? 4 * sizeof(scalar) : 16) base##4 {                                             \
        scalar x, y, z, w;                                                                                             \
    };                                                                                                                 \
    inline base##2 make_##base##2(scalar x, scalar y) { return {x, y}; }                                               \
    inline base##3 make_##base##3(scalar x, scalar y, scalar z) { return {x, y, z}; }                                  \
    inline base##4 make_##base##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }

VECTOR_TYPES(float, float)
VECTOR_TYPES(double, double)
VECTOR_TYPES(int, int)
VECTOR_TYPES(unsigned char, uchar)
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
#undef VECTOR_TYPES

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

// ---------------------------------------------------------------------------------------------------------------------
// Arithmetic

using std::isfinite;
using std::isinf;
using std::isnan;

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frsqrt_rn(float a) { return 1.0f / sqrtf(a); }
inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float __saturatef(float a) { return fminf(fmaxf(a, 0.0f), 1.0f); }
inline float __expf(float a) { return expf(a); }
inline int __float2int_rn(float a) { return static_cast<int>(rintf(a)); }
inline int __float2int_rd(float a) { return static_cast<int>(floorf(a)); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }

template <typename To, typename From> inline To same_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}
inline int __float_as_int(float a) { return same_bits<int>(a); }
inline unsigned __float_as_uint(float a) { return same_bits<unsigned>(a); }
inline float __int_as_float(int a) { return same_bits<float>(a); }
inline float __uint_as_float(unsigned a) { return same_bits<float>(a); }

template <typename T> inline T __ldg(const T* place) { return *place; }
template <typename T> inline T __ldcg(const T* place) { return *place; }

inline void __threadfence() {}
inline void __threadfence_block() {}

// One OS thread runs everything, so plain arithmetic is atomic.
#define ATOMIC(name, expression)                                                                                       \
    template <typename T> inline T name(T* place, std::common_type_t<T> value) {                                       \
        T old = *place;                                                                                                \
        *place = expression;                                                                                           \
        return old;                                                                                                    \
    }
ATOMIC(atomicAdd, old + value)
ATOMIC(atomicSub, old - value)
ATOMIC(atomicMin, ::min(old, value))
ATOMIC(atomicMax, ::max(old, value))
ATOMIC(atomicOr, old | value)
ATOMIC(atomicAnd, old & value)
ATOMIC(atomicExch, value)
#undef ATOMIC
template <typename T> inline T atomicCAS(T* place, std::common_type_t<T> expected, std::common_type_t<T> value) {
    T old = *place;
    *place = old == expected ? value : old;
    return old;
}

// ---------------------------------------------------------------------------------------------------------------------
// Fibers

// Puts the callee-saved registers on the stack, leaves its end in *from, and goes on where `to` was left.
extern "C" void cuda_on_cpu_switch(void** from, void* to);
__asm__(R"(
    .text
    .globl cuda_on_cpu_switch
    .hidden cuda_on_cpu_switch
    .type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cuda_on_cpu_switch, . - cuda_on_cpu_switch
)");

// All `static __shared__` variables lie between these two marks, which the linker sets.
extern "C" char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

namespace cuda_on_cpu {

struct Launch { // as in runner.py
    unsigned grid[3], block[3];
    unsigned shared_bytes;
    int order;
    unsigned seed;
};

enum Order { FORWARD, REVERSE, RANDOM };

constexpr size_t STACK_BYTES = 1 << 16;
constexpr size_t CANARY_BYTES = 64;
constexpr unsigned char POISON = 0xFF; // four or eight of these are a NaN
constexpr unsigned char CANARY = 0xA5;
constexpr int NOWHERE = -1;

struct Fiber {
    void* stack_end;
    uint3 thread;
    int barrier; // its line, or NOWHERE
    bool done;
};

struct Verdict {
    int votes;
};

inline void* dynamic_shared;
inline char error[512];
inline Fiber* running;
inline void* scheduler_stack_end;
inline void (*body)(void**);
inline void** body_arguments;
inline int votes, counted_votes;

inline const char* fail(const char* format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(error, sizeof error, format, values);
    va_end(values);
    return error;
}

inline void wait(int line) {
    Fiber* self = running;
    self->barrier = line;
    cuda_on_cpu_switch(&self->stack_end, scheduler_stack_end);
}

inline Verdict vote(int line, bool yes) {
    votes += yes;
    wait(line);
    return {counted_votes};
}

inline void run_fiber() {
    body(body_arguments);
    running->done = true;
    cuda_on_cpu_switch(&running->stack_end, scheduler_stack_end);
    abort(); // nobody resumes a fiber that is done
}

CUDA_ON_CPU_UNCHECKED inline void poison_static_shared() {
    for (volatile char* byte = __start_shared_memory; byte < __stop_shared_memory; ++byte)
        *byte = static_cast<char>(POISON);
}

// Dynamic shared memory of one block, at exactly the launched size: ASan sees a step past it, else the canary does.
class DynamicShared {
  public:
    explicit DynamicShared(size_t bytes) : bytes(bytes), block(static_cast<unsigned char*>(malloc(bytes + canary))) {
        memset(block, POISON, bytes);
        memset(block + bytes, CANARY, canary);
        dynamic_shared = block;
    }
    ~DynamicShared() { free(block); }
    DynamicShared(const DynamicShared&) = delete;
    bool overrun() const {
        return std::any_of(block + bytes, block + bytes + canary, [](unsigned char byte) { return byte != CANARY; });
    }

  private:
#if defined(__SANITIZE_ADDRESS__)
    static constexpr size_t canary = 0;
#else
    static constexpr size_t canary = CANARY_BYTES;
#endif
    size_t bytes;
    unsigned char* block;
};

// Stacks of the fibers of a block; pages are used when they are touched.
class Stacks {
  public:
    explicit Stacks(size_t count) : bytes(count * STACK_BYTES) {
        pool = static_cast<char*>(
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (pool == MAP_FAILED)
            throw std::bad_alloc();
    }
    ~Stacks() { munmap(pool, bytes); }
    Stacks(const Stacks&) = delete;

    // A stack that looks as if `run_fiber` had been switched away from at its first instruction.
    void* fresh(size_t index) {
        size_t stagger = index % 64 * 64; // else all stacks would share a few cache sets
        char* top = pool + (index + 1) * STACK_BYTES - stagger;
        void** end = reinterpret_cast<void**>(top) - 8; // six registers, then the address to return to
        std::fill(end, end + 8, nullptr);
        end[6] = reinterpret_cast<void*>(&run_fiber);
        return end;
    }

  private:
    size_t bytes;
    char* pool;
};

// <random> would take half of the time that a build takes.
class Random {
  public:
    explicit Random(unsigned seed) : state(seed) {}
    size_t below(size_t limit) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return (state >> 33) % limit;
    }

  private:
    uint64_t state;
};

inline std::vector<unsigned> in_order(size_t count, int order, Random& random) {
    std::vector<unsigned> indices(count);
    std::iota(indices.begin(), indices.end(), 0u);
    if (order == REVERSE)
        std::reverse(indices.begin(), indices.end());
    for (size_t left = count; order == RANDOM && left > 1; --left)
        std::swap(indices[left - 1], indices[random.below(left)]);
    return indices;
}

inline uint3 place(unsigned index, dim3 size) {
    return {index % size.x, index / size.x % size.y, index / size.x / size.y};
}

class Block {
  public:
    Block(Stacks& stacks, int order, Random& random)
        : stacks(stacks), order(order), random(random), fibers(blockDim.size()) {}

    const char* run(unsigned shared_bytes) {
        poison_static_shared();
        DynamicShared shared(shared_bytes);
        for (size_t i = 0; i < fibers.size(); ++i)
            fibers[i] = {stacks.fresh(i), place(i, blockDim), NOWHERE, false};
        while (!fibers[0].done)
            if (const char* trouble = round())
                return trouble;
        if (shared.overrun())
            return fail("a write past %u bytes of dynamic shared memory", shared_bytes);
        return nullptr;
    }

  private:
    Stacks& stacks;
    int order;
    Random& random;
    std::vector<Fiber> fibers;

    // Every thread up to its next barrier, or to its end.
    const char* round() {
        votes = 0;
        for (unsigned i : in_order(fibers.size(), order, random))
            resume(fibers[i]);
        counted_votes = votes;
        for (const Fiber& fiber : fibers)
            if (fiber.done != fibers[0].done || fiber.barrier != fibers[0].barrier)
                return diverged(fiber);
        return nullptr;
    }

    void resume(Fiber& fiber) {
        running = &fiber;
        threadIdx = fiber.thread;
        fiber.barrier = NOWHERE;
        cuda_on_cpu_switch(&scheduler_stack_end, fiber.stack_end);
    }

    const char* diverged(const Fiber& fiber) {
        return fail("divergent barrier in block (%u, %u, %u): thread (0, 0, 0) %s line %d, thread (%u, %u, %u) %s line %d",
                    blockIdx.x, blockIdx.y, blockIdx.z, state(fibers[0]), fibers[0].barrier, fiber.thread.x,
                    fiber.thread.y, fiber.thread.z, state(fiber), fiber.barrier);
    }

    static const char* state(const Fiber& fiber) { return fiber.done ? "has ended," : "waits in"; }
};

inline const char* run(const Launch& launch, unsigned most_threads, void (*kernel)(void**), void** arguments) {
    gridDim = dim3(launch.grid[0], launch.grid[1], launch.grid[2]);
    blockDim = dim3(launch.block[0], launch.block[1], launch.block[2]);
    if (blockDim.size() > most_threads)
        return fail("%u threads a block, but __launch_bounds__ allows %u", blockDim.size(), most_threads);
    body = kernel;
    body_arguments = arguments;
    Random random(launch.seed);
    Stacks stacks(blockDim.size());
    Block block(stacks, launch.order, random);
    for (unsigned i : in_order(gridDim.size(), launch.order, random)) {
        blockIdx = place(i, gridDim);
        if (const char* trouble = block.run(launch.shared_bytes))
            return trouble;
    }
    return nullptr;
}

} // namespace cuda_on_cpu

// `...`: one ARGUMENT for each parameter.
#define ARGUMENT(type, index) *static_cast<type*>(arguments[index])
#define LAUNCHER(kernel, most_threads, ...)                                                                            \
    extern "C" __attribute__((visibility("default"))) const char* launch_##kernel(const cuda_on_cpu::Launch* launch,   \
                                                                                        void** arguments) {            \
        return cuda_on_cpu::run(                                                                                       \
            *launch, most_threads, [](void** arguments) { kernel(__VA_ARGS__); }, arguments);                          \
    }
