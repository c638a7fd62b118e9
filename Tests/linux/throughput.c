// The init process of Linux's column in the figure of throughput (throughput.sh): keeps requests in flight on /dev/vda past the cache, by
// Linux's asynchronous I/O, as bench-block does on Pollux: random places, half of what is in flight awaited at a time.
//   sizes=BYTES,… depths=N,… milliseconds=N operations=read,write   (of the kernel's command line, which init gets as its environment)
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "requests.h"

static void end(const char *error) {
  if (error) printf("linux-throughput: %s\n", error);
  fflush(stdout);
  reboot(RB_AUTOBOOT);
  for (;;) pause();
}

static void prepare(struct iocb *block, int disk, int writes, char *buffer, size_t size, uint64_t blocks) {
  memset(block, 0, sizeof(*block));
  block->aio_fildes = disk;
  block->aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
  block->aio_buf = (uintptr_t)buffer;
  block->aio_nbytes = size;
  block->aio_offset = (int64_t)(throw_dice() % blocks * size);
}

// Bytes a second.
static double run(int disk, int writes, size_t size, int depth, uint64_t bytes, double seconds, char *memory) {
  static struct iocb blocks[DEEPEST];
  static struct iocb *ready[DEEPEST];
  static struct io_event events[DEEPEST];
  aio_context_t context = 0;
  uint64_t done = 0;
  int waiting = depth, in_flight = 0;
  if (syscall(SYS_io_setup, depth, &context)) end("io_setup failed");
  for (int index = 0; index < depth; index++) {
    prepare(&blocks[index], disk, writes, memory + (size_t)index * size, size, bytes / size);
    ready[index] = &blocks[index];
  }
  double start = now(), stop = start + seconds, time;
  do {
    if (waiting) {
      long taken = syscall(SYS_io_submit, context, (long)waiting, ready);
      if (taken != waiting) end("io_submit failed");
      in_flight += waiting;
      waiting = 0;
    }
    long got = syscall(SYS_io_getevents, context, (long)(depth + 3) / 4, (long)depth, events, NULL);
    if (got <= 0) end("io_getevents failed");
    time = now();
    in_flight -= got;
    for (long index = 0; index < got; index++) {
      struct iocb *block = (struct iocb *)(uintptr_t)events[index].obj;
      if (events[index].res != (int64_t)size) end("a request failed");
      done += size;
      if (time >= stop) continue;
      prepare(block, disk, writes, (char *)(uintptr_t)block->aio_buf, size, bytes / size);
      ready[waiting++] = block;
    }
  } while (time < stop);
  while (in_flight > 0) {
    long got = syscall(SYS_io_getevents, context, 1L, (long)depth, events, NULL);
    if (got <= 0) end("io_getevents failed");
    in_flight -= got;
    done += (uint64_t)got * size;
  }
  time = now();
  syscall(SYS_io_destroy, context);
  return done / (time - start);
}

// The numbers of a list.
static int numbers(const char *name, const char *standard, long *list, int most) {
  const char *text = getenv(name) ? getenv(name) : standard;
  int count = 0;
  while (*text && count < most) {
    char *rest;
    list[count++] = strtol(text, &rest, 10);
    text = *rest == ',' ? rest + 1 : rest + strlen(rest);
  }
  return count;
}

int main(void) {
  long sizes[16], depths[16], milliseconds[1];
  int size_count = numbers("sizes", "4096,16384,65536,131072,1048576", sizes, 16);
  int depth_count = numbers("depths", "8,32", depths, 16);
  const char *operations = getenv("operations") ? getenv("operations") : "read,write";
  void *memory;
  numbers("milliseconds", "500", milliseconds, 1);
  mkdir("/dev", 0755);
  mount("dev", "/dev", "devtmpfs", 0, NULL);
  int disk = open("/dev/vda", O_RDWR | O_DIRECT);
  off_t bytes = disk < 0 ? 0 : lseek(disk, 0, SEEK_END);
  if (bytes <= 0) end("no disk");
  for (int writes = 0; writes < 2; writes++) {
    if (!strstr(operations, writes ? "write" : "read")) continue;
    for (int depth = 0; depth < depth_count; depth++)
      for (int size = 0; size < size_count; size++) {
        if (depths[depth] < 1 || depths[depth] > DEEPEST || sizes[size] < 512 || sizes[size] > bytes) end("no such case");
        size_t all = (size_t)sizes[size] * (size_t)depths[depth];
        if (posix_memalign(&memory, 2 << 20, all)) end("no memory");
        memset(memory, 0xa5, all);
        run(disk, writes, (size_t)sizes[size], (int)depths[depth], (uint64_t)bytes, 0.05, memory);
        double rate = run(
          disk, writes, (size_t)sizes[size], (int)depths[depth], (uint64_t)bytes, milliseconds[0] / 1000.0, memory);
        printf("linux-throughput: %-5s %7ld x%-3ld %9.1f MB/s %9.0f IOPS\n", writes ? "write" : "read", sizes[size],
               depths[depth], rate / 1e6, rate / sizes[size]);
        fflush(stdout);
        free(memory);
      }
  }
  end(NULL);
}
