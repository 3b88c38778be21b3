// Maps an image where it was linked for and calls its kernels: the part of running that
// cannot be done on another architecture. The job, on standard input, is
//
//   image FILE BASE SIZE         the image's bytes and its place
//   segment START END CODE|CONSTANTS|DATA     by offset, with rights
//   call ADDRESS FILE            a kernel, and 4096 bytes of input for it
//
// with numbers in hexadecimal; the outputs, 4096 bytes each, go to standard output.
// Without a job it prints the addresses of the symbols that images may refer to.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SYMBOL(name) extern char symbol_##name[] __asm__(#name);
#include "symbols.h"
#undef SYMBOL

static const struct { const char *name; char *address; } symbols[] = {
#define SYMBOL(name) {#name, symbol_##name},
#include "symbols.h"
    {0, 0},
};

static unsigned char input[4096] __attribute__((aligned(64)));
static unsigned char output[4096] __attribute__((aligned(64)));

static void must(int holds, const char *what) {
    if (holds) return;
    perror(what);
    exit(1);
}

static void read_file(const char *path, void *to, size_t size) {
    FILE *file = fopen(path, "rb");
    must(file != 0, path);
    must(fread(to, 1, size, file) == size, path);
    fclose(file);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "symbols")) {
        for (int i = 0; symbols[i].name; i++) printf("%s %p\n", symbols[i].name, symbols[i].address);
        return 0;
    }
    char word[32], path[4096];
    unsigned char *base = 0;
    while (scanf("%31s", word) == 1) {
        unsigned long a, b;
        if (!strcmp(word, "image")) {
            must(scanf("%4095s %lx %lx", path, &a, &b) == 3, word);
            base = mmap((void *)a, b, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
            must(base == (void *)a, "mmap");
            read_file(path, base, b);
            __builtin___clear_cache((char *)base, (char *)base + b);
        } else if (!strcmp(word, "segment")) {
            must(scanf("%lx %lx %31s", &a, &b, word) == 3, word);
            int rights = !strcmp(word, "CODE") ? PROT_READ | PROT_EXEC
                       : !strcmp(word, "DATA") ? PROT_READ | PROT_WRITE : PROT_READ;
            must(mprotect(base + a, b - a, rights) == 0, "mprotect");
        } else if (!strcmp(word, "call")) {
            must(scanf("%lx %4095s", &a, path) == 2, word);
            read_file(path, input, sizeof input);
            memset(output, 0, sizeof output);
            ((void (*)(void *, const void *))a)(output, input);
            must(fwrite(output, 1, sizeof output, stdout) == sizeof output, "write");
        } else {
            must(0, word);
        }
    }
    return 0;
}
