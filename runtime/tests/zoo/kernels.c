// Kernels that go wrong, and some that do not: each in one way, whatever compiles it.
//
// All have one signature: `y` are 10 numbers that are written (8 bytes of slack behind them), `x`
// are 40 that are read, `v` are 8 that are both, `n` are 5 that are read (12 bytes of slack), and
// what `at` and `i` mean is the kernel's.

typedef float f4 __attribute__((vector_size(16), aligned(4)));
typedef double d2 __attribute__((vector_size(16), aligned(8)));
typedef double d4 __attribute__((vector_size(32), aligned(8)));
typedef double aligned2 __attribute__((vector_size(16)));

#define KERNEL(name)                                                                               \
    int name(float *y, const float *x, double *v, const int *n, long at, int i)
#define NOINLINE __attribute__((noinline))
#define SEEN(type, address) (*(volatile type *)(address))

// A number that the compiler knows nothing of.
static inline long hide(long number) {
    __asm__ volatile("" : "+r"(number));
    return number;
}

#if defined(__x86_64__)
enum { MMAP = 9, MPROTECT = 10, MUNMAP = 11, SIGACTION = 13, SIGMASK = 14, PAUSE = 34, GETPID = 39,
       EXIT = 60, KILL = 62, ALTSTACK = 131, GETTID = 186, EXIT_GROUP = 231, TGKILL = 234 };
static inline __attribute__((always_inline)) long ask(long call, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "+a"(call)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return call;
}
static long fork_child(void) { return ask(57, 0, 0, 0, 0, 0, 0); }
static void wait_forever(void) { ask(PAUSE, 0, 0, 0, 0, 0, 0); }
#elif defined(__aarch64__)
enum { EXIT = 93, EXIT_GROUP = 94, KILL = 129, TGKILL = 131, ALTSTACK = 132, SIGACTION = 134,
       SIGMASK = 135, GETPID = 172, GETTID = 178, MUNMAP = 215, MMAP = 222, MPROTECT = 226 };
static inline __attribute__((always_inline)) long ask(long call, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = call;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
static long fork_child(void) { return ask(220, 17, 0, 0, 0, 0, 0); }
static void wait_forever(void) { ask(73, 0, 0, 0, 0, 0, 0); }
#endif

static long own_id(void) { return ask(GETPID, 0, 0, 0, 0, 0, 0); }

// --- Good ones.

KERNEL(good) {
    for (int k = 0; k < 10; k++) y[k] = 2.0f * x[k] + (float)n[k % 5];
    for (int k = 0; k < 8; k++) v[k] += (double)at;
    return 0;
}

KERNEL(good_grid) {
    y[i] = x[3 * i] + (float)i;
    return 0;
}

KERNEL(good_stack) {
    volatile char some[512 << 10];
    for (long k = 0; k < (512 << 10); k += 4096) some[k] = (char)k;
    y[0] = (float)some[4096];
    return 0;
}

KERNEL(fails) { return i == at ? 3 : 0; }

// --- Memory.

KERNEL(write_y) { SEEN(float, y + at) = 1; return 0; }
KERNEL(write_v) { SEEN(double, v + at) = 1; return 0; }
KERNEL(write_x) { SEEN(float, x + at) = 1; return 0; }
KERNEL(write_n) { SEEN(int, n + at) = 1; return 0; }
KERNEL(read_y) { y[0] = SEEN(float, y + at); return 0; }
KERNEL(read_x) { y[0] = SEEN(float, x + at); return 0; }
KERNEL(read_v) { y[0] = (float)SEEN(double, v + at); return 0; }
KERNEL(read_n) { y[0] = (float)SEEN(int, n + at); return 0; }
KERNEL(write_byte) { SEEN(char, (char *)v + at) = 1; return 0; }
KERNEL(write_grid) { SEEN(double, v + i) = i; return 0; }
KERNEL(read_row) { y[i] = SEEN(float, x + 8 * i); return 0; }

KERNEL(loop_too_far) {
    for (long k = 0; k <= at; k++) v[k] += 1.0;
    return 0;
}

KERNEL(write_vector16) { SEEN(d2, v + at) = (d2){1, 2}; return 0; }
KERNEL(write_vector32) { SEEN(d4, v + at) = (d4){1, 2, 3, 4}; return 0; }
KERNEL(read_vector16) { SEEN(f4, y) = SEEN(f4, x + at); return 0; }

KERNEL(write_atomic) { return __atomic_fetch_add((long *)v + at, 1, __ATOMIC_SEQ_CST) < 0; }

KERNEL(set_memory) { __builtin_memset(v, 0, at); return 0; }
KERNEL(copy_memory) { __builtin_memcpy(v, x, at); return 0; }

KERNEL(read_address) { y[0] = (float)SEEN(int, hide(at)); return 0; }
KERNEL(write_address) { SEEN(long, hide(at)) = 0x0bad; return 0; }
KERNEL(write_code) { SEEN(char, hide((long)&write_v)) = 0; return 0; }

// Gives itself the right to write what it may only read.
KERNEL(make_writable) {
    long page = (long)x & -4096L;
    long refused = ask(MPROTECT, page, 4096, 3, 0, 0, 0);
    SEEN(float, x) = 7;
    return refused != 0;
}

// --- The stack.

static NOINLINE long deep(volatile long *from, long depth) {
    volatile long here[8];
    here[depth & 7] = from[0];
    return depth == 0 ? here[0] : deep(here, depth - 1) + here[1];
}

KERNEL(recurse) {
    volatile long first[8] = {0};
    y[0] = (float)deep(first, hide(1L << 40));
    return 0;
}

KERNEL(huge_frame) {
    volatile char huge[8 << 20];
    huge[at] = 1;
    y[0] = huge[at];
    return 0;
}

static NOINLINE int touched(volatile char *bytes) { return bytes[0] = 1; }

KERNEL(vast_frame) {
    char vast[64 << 20];
    return touched(vast) + touched(vast + at) - 2;
}

KERNEL(drop_stack) {
    long page = (long)&at & -4096L;
    ask(MUNMAP, page - (1L << 14), (1L << 14) + 4096, 0, 0, 0, 0);
    return touched((char *)&at);
}

// --- Instructions.

KERNEL(trap) { __builtin_trap(); }

KERNEL(divide32) { y[0] = (float)((int)hide(7) / (int)hide(at)); return 0; }
KERNEL(divide64) { y[0] = (float)(hide(7) / hide(at)); return 0; }
KERNEL(remainder32) { y[0] = (float)((int)hide(7) % (int)hide(at)); return 0; }
KERNEL(unsigned_divide) { y[0] = (float)((unsigned)hide(7) / (unsigned)hide(at)); return 0; }
KERNEL(least_divide32) { y[0] = (float)((int)hide(1L << 31) / (int)hide(at)); return 0; }
KERNEL(least_divide64) { y[0] = (float)(hide(1L << 63) / hide(at)); return 0; }
KERNEL(least_remainder) { y[0] = (float)((int)hide(1L << 31) % (int)hide(at)); return 0; }

// --- Jumps.

typedef void code(void);

// Not as a function's last, so that it is a call.
KERNEL(call_address) {
    ((code *)hide(at))();
    return (int)hide(0);
}

KERNEL(call_buffer) {
    ((code *)hide((long)v))();
    return (int)hide(0);
}

// --- Ends.

KERNEL(send_signal) { return (int)ask(KILL, own_id(), at, 0, 0, 0, 0); }

KERNEL(send_to_thread) {
    return (int)ask(TGKILL, own_id(), ask(GETTID, 0, 0, 0, 0, 0, 0), at, 0, 0, 0);
}

KERNEL(signal_group) { return (int)ask(KILL, 0, at, 0, 0, 0, 0); }

KERNEL(end_process) { return (int)ask(EXIT_GROUP, at, 0, 0, 0, 0, 0); }
KERNEL(end_thread) { return (int)ask(EXIT, at, 0, 0, 0, 0, 0); }

KERNEL(loop_forever) {
    while (hide(1)) {}
    return 0;
}

KERNEL(sleep_forever) {
    while (hide(1)) wait_forever();
    return 0;
}

static NOINLINE char *more_memory(long bytes) {
    return (char *)ask(MMAP, 0, bytes, 3, 0x22, -1, 0);
}

KERNEL(hog) {
    while (hide(1)) {
        char *more = more_memory(1 << 20);
        for (long k = 0; k < (1 << 20); k += 4096) SEEN(char, more + k) = 1;
    }
    return 0;
}

KERNEL(hog_addresses) {
    long all = 0;
    while (hide(1)) all += SEEN(char, more_memory(1 << 26));
    return (int)all;
}

// Children that outlive the launch, if they can.
KERNEL(leave_child) {
    for (int k = 0; k < at; k++) {
        long child = fork_child();
        if (child == 0)
            while (hide(1)) {}
        v[k] = (double)child;
    }
    return 0;
}

// --- Those that take the handlers away.

struct action {
    long handler;
    unsigned long flags;
    long restorer;
    unsigned long mask;
};

static void set_handler(long signal, long handler) {
    struct action action = {handler, 0, 0, 0};
    ask(SIGACTION, signal, (long)&action, 0, 8, 0, 0);
}

static void drop_handler_stack(void) {
    struct { void *start; int flags; unsigned long size; } none = {0, 2, 0};
    ask(ALTSTACK, (long)&none, 0, 0, 0, 0, 0);
}

static void block_all(void) {
    unsigned long all = ~0UL;
    ask(SIGMASK, 2, (long)&all, 0, 8, 0, 0);
}

KERNEL(default_then_read) { set_handler(11, 0); y[0] = (float)SEEN(int, hide(at)); return 0; }
KERNEL(ignore_then_read) { set_handler(11, 1); y[0] = (float)SEEN(int, hide(at)); return 0; }
KERNEL(block_then_read) { block_all(); y[0] = (float)SEEN(int, hide(at)); return 0; }
KERNEL(block_then_loop) {
    block_all();
    while (hide(1)) {}
    return 0;
}
KERNEL(default_then_loop) {
    set_handler(27, 0);
    while (hide(1)) {}
    return 0;
}
KERNEL(no_stack_then_read) { drop_handler_stack(); y[0] = (float)SEEN(int, hide(at)); return 0; }
KERNEL(no_stack_then_recurse) {
    drop_handler_stack();
    volatile long first[8] = {0};
    y[0] = (float)deep(first, hide(1L << 40));
    return 0;
}
