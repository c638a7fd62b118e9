// The init process of the count of Linux's instructions for a block request (instructions.sh): reads random blocks from /dev/vda past the
// cache, one at a time or, by Linux's asynchronous I/O, several, and reports how long the processor was not idle. Under `qemu -icount shift=0`
// a nanosecond is an instruction.
//   requests=N size=BYTES depths=N,…
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "requests.h"

static double idle_seconds(void) {
  char text[64] = "";
  double up, idle = -1;
  int file = open("/proc/uptime", O_RDONLY);
  if (file < 0 || read(file, text, sizeof(text) - 1) <= 0 || sscanf(text, "%lf %lf", &up, &idle) != 2) idle = -1;
  close(file);
  return idle;
}

static void end(int code) {
  fflush(stdout);
  // QEMU's isa-debug-exit.
  if (iopl(3) == 0) outl(code, 0xf4);
  reboot(RB_AUTOBOOT);
  for (;;) pause();
}

static void fail(const char *error) {
  printf("linux-count: %s\n", error);
  end(1);
}

static void one_at_a_time(int disk, long requests, size_t size, uint64_t blocks, char *buffer) {
  for (long index = 0; index < requests; index++)
    if (pread(disk, buffer, size, (off_t)(throw_dice() % blocks * size)) != (ssize_t)size) fail("a read failed");
}

// As bench-block does it on Pollux: a quarter of what is in flight is waited for, and what is done is sent again, all at once.
static void many_at_a_time(int disk, long requests, size_t size, uint64_t blocks, char *buffer, int depth) {
  static struct iocb controls[DEEPEST];
  static struct iocb *ready[DEEPEST];
  static struct io_event events[DEEPEST];
  aio_context_t context = 0;
  long sent = 0, done = 0;
  int waiting = depth;
  if (syscall(SYS_io_setup, depth, &context)) fail("io_setup failed");
  for (int index = 0; index < depth; index++) {
    controls[index].aio_fildes = disk;
    controls[index].aio_lio_opcode = IOCB_CMD_PREAD;
    controls[index].aio_buf = (uintptr_t)(buffer + (size_t)index * size);
    controls[index].aio_nbytes = size;
    ready[index] = &controls[index];
  }
  while (done < requests) {
    for (int index = 0; index < waiting; index++) ready[index]->aio_offset = (int64_t)(throw_dice() % blocks * size);
    if (waiting && syscall(SYS_io_submit, context, (long)waiting, ready) != waiting) fail("io_submit failed");
    sent += waiting;
    waiting = 0;
    long left = sent - done;
    long least = left < (depth + 3) / 4 ? left : (depth + 3) / 4;
    long got = syscall(SYS_io_getevents, context, least, (long)depth, events, NULL);
    if (got <= 0) fail("io_getevents failed");
    for (long index = 0; index < got; index++) {
      if (events[index].res != (int64_t)size) fail("a read failed");
      if (sent + waiting < requests) ready[waiting++] = (struct iocb *)(uintptr_t)events[index].obj;
    }
    done += got;
  }
  syscall(SYS_io_destroy, context);
}

int main(void) {
  long requests = getenv("requests") ? atol(getenv("requests")) : 10000;
  size_t size = getenv("size") ? (size_t)atol(getenv("size")) : 4096;
  const char *depths = getenv("depths") ? getenv("depths") : "1";
  void *buffer;
  int disk;
  mkdir("/proc", 0755);
  mount("proc", "/proc", "proc", 0, NULL);
  mount("dev", "/dev", "devtmpfs", 0, NULL);
  disk = open("/dev/vda", O_RDONLY | O_DIRECT);
  off_t blocks = disk < 0 ? 0 : lseek(disk, 0, SEEK_END) / (off_t)size;
  if (blocks <= 0 || posix_memalign(&buffer, 4096, size * DEEPEST)) fail("no disk");
  while (*depths) {
    char *rest;
    long depth = strtol(depths, &rest, 10);
    depths = *rest == ',' ? rest + 1 : rest + strlen(rest);
    if (depth < 1 || depth > DEEPEST) fail("no such depth");
    double start = now(), idle = idle_seconds();
    if (depth == 1)
      one_at_a_time(disk, requests, size, (uint64_t)blocks, buffer);
    else
      many_at_a_time(disk, requests, size, (uint64_t)blocks, buffer, (int)depth);
    double busy = now() - start - (idle_seconds() - idle);
    printf("linux-count: %ld reads of %zu bytes, %ld in flight, %.0f instructions each\n", requests, size, depth,
           busy * 1e9 / requests);
  }
  end(0);
}
