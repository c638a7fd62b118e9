// The init process of the count of Linux's instructions for a block request (instructions.sh): reads random blocks from /dev/vda past the
// cache, one at a time, and reports how long the processor was not idle. Under `qemu -icount shift=0` a nanosecond is an instruction.
//   requests=N size=BYTES
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double idle_seconds(void) {
  char text[64] = "";
  double up, idle = -1;
  int file = open("/proc/uptime", O_RDONLY);
  if (file < 0 || read(file, text, sizeof(text) - 1) <= 0 || sscanf(text, "%lf %lf", &up, &idle) != 2) idle = -1;
  close(file);
  return idle;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void end(int code) {
  fflush(stdout);
  // QEMU's isa-debug-exit.
  if (iopl(3) == 0) outl(code, 0xf4);
  reboot(RB_AUTOBOOT);
  for (;;) pause();
}

int main(void) {
  long requests = getenv("requests") ? atol(getenv("requests")) : 10000;
  size_t size = getenv("size") ? (size_t)atol(getenv("size")) : 4096;
  uint64_t dice = 88172645463325252ull;
  void *buffer;
  int disk;
  mkdir("/proc", 0755);
  mount("proc", "/proc", "proc", 0, NULL);
  mount("dev", "/dev", "devtmpfs", 0, NULL);
  disk = open("/dev/vda", O_RDONLY | O_DIRECT);
  off_t blocks = disk < 0 ? 0 : lseek(disk, 0, SEEK_END) / (off_t)size;
  if (blocks <= 0 || posix_memalign(&buffer, 4096, size)) {
    printf("linux-count: no disk\n");
    end(1);
  }
  double start = now(), idle = idle_seconds();
  for (long index = 0; index < requests; index++) {
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    if (pread(disk, buffer, size, (off_t)(dice % (uint64_t)blocks) * (off_t)size) != (ssize_t)size) {
      printf("linux-count: a read failed\n");
      end(1);
    }
  }
  double busy = now() - start - (idle_seconds() - idle);
  printf("linux-count: %ld reads of %zu bytes, %.0f instructions each\n", requests, size, busy * 1e9 / requests);
  end(0);
}
