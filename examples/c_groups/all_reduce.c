/* Two processes of a C program add up an array, without Python.
 *
 *     cc -std=gnu11 all_reduce.c -I INCLUDE FOLDER/libgradring.so -Wl,-rpath,FOLDER -o all_reduce && ./all_reduce
 *
 * INCLUDE is what gradring.get_include() returns, and FOLDER the folder of the installed package. The parent makes the shared memory
 * and inherits it to the other ranks; each rank knows the others' processes by pidfds, so that a death ends every wait. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gradring/gradring.h"

enum { RANKS = 2, COUNT = 1000000 };

static void must(int code, const char* what) {
  if (code == GRADRING_OK) return;
  fprintf(stderr, "%s: %s\n", what, gradring_last_error());
  exit(1);
}

static int work(int rank, int segment, const int* data, pid_t other) {
  int pidfds[RANKS] = {-1, -1};
  gradring_group* group = NULL;
  void* memory = NULL;
  float* x;
  int64_t i;
  pidfds[1 - rank] = (int)syscall(SYS_pidfd_open, other, 0);
  must(gradring_group_join(segment, rank, RANKS, 0, pidfds, data, 60.0, &group), "join");
  must(gradring_group_allocate(group, COUNT * sizeof(float), &memory), "allocate");
  x = memory;
  for (i = 0; i < COUNT; ++i) x[i] = (float)(i % 100 + rank);
  must(gradring_all_reduce(group, x, x, COUNT, GRADRING_FLOAT32, GRADRING_SUM), "all_reduce");
  for (i = 0; i < COUNT; ++i) {
    if (x[i] != (float)(i % 100 * RANKS + 1)) {
      fprintf(stderr, "rank %d: element %lld is %g\n", rank, (long long)i, (double)x[i]);
      return 1;
    }
  }
  must(gradring_barrier(group), "barrier"); /* no rank leaves while another still reads */
  printf("rank %d of %d: the sum is right\n", gradring_group_rank(group), gradring_group_size(group));
  fflush(stdout);
  gradring_group_free(group, memory);
  gradring_group_destroy(group);
  return 0;
}

int main(void) {
  int segment, data[RANKS], i, status = 1, own;
  pid_t child;
  must(gradring_group_segment(RANKS, &segment), "segment");
  for (i = 0; i < RANKS; ++i) must(gradring_group_data_segment(&data[i]), "data segment");
  child = fork();
  if (child < 0) return 1;
  if (child == 0) exit(work(1, segment, data, getppid()));
  own = work(0, segment, data, child);
  if (waitpid(child, &status, 0) != child) return 1;
  return own != 0 || status != 0;
}
