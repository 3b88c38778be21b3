#include <omp.h>

typedef long long i64;
typedef void kernel(void *memory, i64 rounds, i64 index);

/* A launch: a parallel loop over the grid. */
void launch(kernel *k, void *memory, i64 rounds, i64 grid) {
#pragma omp parallel for num_threads(2) schedule(static)
    for (i64 i = 0; i < grid; i++)
        k(memory, rounds, i);
}

/* Launches one after another in one parallel region, each with the barrier at its end. */
void launches(kernel *k, void *memory, i64 rounds, i64 grid, i64 count) {
#pragma omp parallel num_threads(2)
    for (i64 n = 0; n < count; n++) {
#pragma omp for schedule(static)
        for (i64 i = 0; i < grid; i++)
            k(memory, rounds, i);
    }
}

/* Ends the threads, which wait for the next region awake. Returns 0 when it is done. */
int rest(void) { return omp_pause_resource_all(omp_pause_hard); }
