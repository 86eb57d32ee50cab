/* Two processes of a C program add up an array, without Python.
 *
 *     cc -std=gnu11 all_reduce.c -I INCLUDE FOLDER/libgradring.so -Wl,-rpath,FOLDER -o all_reduce && ./all_reduce
 *
 * INCLUDE is what gradring.get_include() returns, and FOLDER the folder of the installed package. The parent makes the shared memory
 * and inherits it to the other ranks. Each rank sends the other a pidfd of itself, so that a death ends every wait. A pidfd that is
 * opened from another process's number could be that of a stranger: when a process has ended, its number is free for a new one. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

/* Sends a descriptor of this process, and receives the other's. Returns -1 if the other has ended. */
static int exchange_pidfds(int link) {
  union {
    struct cmsghdr head; /* for its alignment */
    char bytes[CMSG_SPACE(sizeof(int))];
  } space;
  char byte = 0;
  struct iovec data = {&byte, 1};
  struct msghdr message;
  struct cmsghdr* rights;
  int own = (int)syscall(SYS_pidfd_open, getpid(), 0), other = -1;
  if (own < 0) return -1;
  memset(&message, 0, sizeof message);
  memset(&space, 0, sizeof space);
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = space.bytes;
  message.msg_controllen = sizeof space.bytes;
  rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof own);
  memcpy(CMSG_DATA(rights), &own, sizeof own);
  if (sendmsg(link, &message, MSG_NOSIGNAL) == 1) {
    message.msg_controllen = sizeof space.bytes;
    if (recvmsg(link, &message, MSG_CMSG_CLOEXEC) == 1) {
      rights = CMSG_FIRSTHDR(&message);
      if (rights && rights->cmsg_type == SCM_RIGHTS) memcpy(&other, CMSG_DATA(rights), sizeof other);
    }
  }
  close(own);
  return other;
}

static int work(int rank, int segment, const int* data, int link) {
  int pidfds[RANKS] = {-1, -1};
  gradring_group* group = NULL;
  void* memory = NULL;
  float* x;
  int64_t i;
  pidfds[1 - rank] = exchange_pidfds(link);
  close(link);
  if (pidfds[1 - rank] < 0) {
    fprintf(stderr, "rank %d: the other rank has ended\n", rank);
    return 1;
  }
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
  int segment, data[RANKS], link[2], i, status = 1, own;
  pid_t child;
  must(gradring_group_segment(RANKS, &segment), "segment");
  for (i = 0; i < RANKS; ++i) must(gradring_group_data_segment(&data[i]), "data segment");
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) != 0) return 1;
  child = fork();
  if (child < 0) return 1;
  if (child == 0) {
    close(link[0]);
    exit(work(1, segment, data, link[1]));
  }
  close(link[1]);
  own = work(0, segment, data, link[0]);
  if (waitpid(child, &status, 0) != child) return 1;
  return own != 0 || status != 0;
}
