// Kernels that go wrong as x86-64 alone can. The signature is that of `kernels.c`.

#define KERNEL(name)                                                                               \
    int name(float *y, const float *x, double *v, const int *n, long at, int i)

static inline long hide(long number) {
    __asm__ volatile("" : "+r"(number));
    return number;
}

// --- Memory.

typedef double d2 __attribute__((vector_size(16)));

KERNEL(store_misaligned) {
    *(volatile d2 *)((char *)v + at) = (d2){1, 2};
    return 0;
}
KERNEL(load_misaligned) {
    __asm__ volatile("movaps (%0), %%xmm0" : : "r"(x + at) : "xmm0");
    return 0;
}

KERNEL(fill_bytes) {
    void *to = v;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(at) : "a"(0) : "memory");
    return 0;
}

KERNEL(copy_words) {
    void *to = v;
    const void *from = x;
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(at) : : "memory");
    return 0;
}

typedef float f8 __attribute__((vector_size(32), aligned(4)));
typedef int i8 __attribute__((vector_size(32)));

__attribute__((target("avx2"))) KERNEL(gather) {
    i8 from = {0, 1, 2, 3, 4, (int)at, 6, 7}, all = ~(i8){0};
    f8 got;
    __asm__ volatile("vgatherdps %1, (%2, %3, 4), %0" : "=&x"(got), "+x"(all) : "r"(x), "x"(from));
    y[0] = got[5];
    return 0;
}

__attribute__((target("avx2"))) KERNEL(store_masked) {
    i8 some = {0}, ones = ~(i8){0};
    for (int k = 0; k < 8; k++) some[k] = k < at ? -1 : 0;
    __asm__ volatile("vmaskmovps %2, %1, (%0)" : : "r"(y + 8), "x"(some), "x"(ones) : "memory");
    return 0;
}

KERNEL(read_from_frame) {
    __asm__ volatile("push %%rbp\n\tmov %0, %%rbp\n\tmov (%%rbp), %%eax\n\tpop %%rbp"
                     : : "r"(at) : "rax", "memory");
    return 0;
}

KERNEL(lose_stack) {
    __asm__ volatile("mov %%rsp, %%rbx\n\tmov %0, %%rsp\n\tpush %%rax\n\tmov %%rbx, %%rsp"
                     : : "r"(at) : "rbx", "memory");
    return 0;
}

// --- Instructions.

KERNEL(ud2) { __asm__ volatile("ud2"); return 0; }
KERNEL(no_instruction) { __asm__ volatile(".byte 0x06, 0x06"); return 0; }
KERNEL(hlt) { __asm__ volatile("hlt"); return 0; }
KERNEL(cli) { __asm__ volatile("cli"); return 0; }
KERNEL(port) { __asm__ volatile("outb %%al, $0x80" : : "a"(0)); return 0; }
KERNEL(interrupt) { __asm__ volatile("int $0x50"); return 0; }
KERNEL(breakpoint) { __asm__ volatile("int3"); return 0; }

KERNEL(divide_by_memory) {
    int by = (int)at, high, low;
    __asm__ volatile("idivl %4" : "=d"(high), "=a"(low) : "0"(-(i != 0)), "1"(7), "m"(by));
    y[0] = (float)low;
    return 0;
}

// The least number, by what `n` or `v` holds.
KERNEL(least_by_constant) {
    int high, low;
    __asm__ volatile("idivl %4" : "=d"(high), "=a"(low) : "0"(-1), "1"(1 << 31), "m"(n[at]));
    y[0] = (float)low;
    return 0;
}

KERNEL(least_by_written) {
    long high, low, *by = (long *)v;
    by[1] = at;
    __asm__ volatile("idivq %4" : "=d"(high), "=a"(low) : "0"(-1L), "1"(1L << 63), "m"(by[1]));
    y[0] = (float)low;
    return 0;
}

// A quotient of more than 32 bits.
KERNEL(quotient_too_large) {
    unsigned high, low;
    __asm__ volatile("divl %4" : "=d"(high), "=a"(low) : "0"(5), "1"(0), "r"((int)at));
    y[0] = (float)low;
    return 0;
}

// --- Jumps.

KERNEL(return_to) { __asm__ volatile("push %0\n\tret" : : "r"(at)); return 0; }
KERNEL(jump_to) { __asm__ volatile("jmp *%0" : : "r"(at)); return 0; }
KERNEL(call_through) {
    long to = at;
    __asm__ volatile("call *%0" : : "m"(to) : "memory");
    return 0;
}

// --- Flags and control.

static inline void set_flags(long flags) {
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\tor %0, (%%rsp)\n\tpopfq\n\t"
                     "lea 128(%%rsp), %%rsp" : : "r"(flags) : "memory", "cc");
}

KERNEL(check_alignment) {
    int got;
    set_flags(1 << 18);
    __asm__ volatile("movl 1(%1), %0" : "=r"(got) : "r"(x + at));
    return got == 0;
}

KERNEL(step) { set_flags(1 << 8); return 0; }

static inline void set_control(unsigned control) {
    __asm__ volatile("ldmxcsr %0" : : "m"(control));
}

KERNEL(divide_floats) {
    double zero = 0;
    set_control(0x1f80 & ~(0x3fL << 7));
    __asm__ volatile("divsd %0, %0" : "+x"(zero));
    y[0] = (float)zero;
    return 0;
}

KERNEL(divide_long_doubles) {
    unsigned short control = 0x0340;
    __asm__ volatile("fldcw %0\n\tfldz\n\tfldz\n\tfdivp\n\tfwait" : : "m"(control));
    return 0;
}

// They leave what the next finds.
KERNEL(leave_alignment_checked) { set_flags(1 << 18); return 0; }
KERNEL(leave_backwards) { __asm__ volatile("std"); return 0; }
KERNEL(leave_control) {
    unsigned short x87 = 0x0c7f;
    set_control(0xffc0);
    __asm__ volatile("fldcw %0" : : "m"(x87));
    return 0;
}
KERNEL(leave_unmasked) { set_control(0); return 0; }

// Numbers that are too small to be normal are kept, and bytes copied upwards.
KERNEL(good_tiny) {
    y[0] = *(volatile const float *)(x + 1) * 1e-39f;
    for (int k = 1; k < 10; k++) y[k] = (float)k;
    double copy[8];
    __builtin_memcpy(copy, v, sizeof copy);
    for (int k = 0; k < 8; k++) v[k] = copy[7 - k];
    return 0;
}
