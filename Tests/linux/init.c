// The init process of the Linux test: exercises Castor's devices through Linux's drivers, reports to the console and ends
// the machine through the power-control port (docs/platform.md) with exit code 0, or 1 when a check failed.
// The kernel passes these arguments of its command line on as environment variables:
//   cpus=N queues=N address=A.B.C.D peer=A.B.C.D input=POSIX-CRC entropy=0|1
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int failures;

static void check(int good, const char *what) {
  printf("linux-test: %s %s\n", good ? "ok" : "FAILED", what);
  if (!good) failures++;
}

static void power_off(unsigned value) {
  fflush(stdout);
  tcdrain(STDOUT_FILENO);  // Linux sends the console's last lines by interrupt, after write() has returned
  sync();
  if (iopl(3) == 0) outl(value, 0x600);
  else printf("linux-test: iopl: %s\n", strerror(errno));
  printf("linux-test: FAILED power off\n");
  fflush(stdout);
  reboot(RB_AUTOBOOT);
}

static long number(const char *name) {
  const char *text = getenv(name);
  return text ? strtol(text, NULL, 10) : 0;
}

// The checksum of POSIX cksum: CRC-32 of the data and then of its length.
static uint32_t crc_byte(uint32_t crc, uint8_t byte) {
  crc ^= (uint32_t)byte << 24;
  for (int bit = 0; bit < 8; bit++) crc = crc & 0x80000000 ? crc << 1 ^ 0x04c11db7 : crc << 1;
  return crc;
}

static uint32_t file_sum(const char *path) {
  static uint8_t buffer[65536];
  uint32_t crc = 0;
  uint64_t length = 0;
  int file = open(path, O_RDONLY);
  for (;;) {
    ssize_t count = file < 0 ? -1 : read(file, buffer, sizeof buffer);
    if (count < 0) {
      printf("linux-test: %s: %s\n", path, strerror(errno));
      if (file >= 0) close(file);
      return 0;
    }
    if (count == 0) break;
    for (ssize_t index = 0; index < count; index++) crc = crc_byte(crc, buffer[index]);
    length += (uint64_t)count;
  }
  close(file);
  for (; length; length >>= 8) crc = crc_byte(crc, (uint8_t)length);
  return ~crc;
}

static int write_file(const char *path, size_t count) {
  static uint8_t buffer[65536];
  uint32_t state = 0x12345678;
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file < 0) return 0;
  for (size_t done = 0; done < count; done += sizeof buffer) {
    for (size_t index = 0; index < sizeof buffer; index++) {
      state = state * 1664525 + 1013904223;
      buffer[index] = (uint8_t)(state >> 24);
    }
    if (write(file, buffer, sizeof buffer) != sizeof buffer) return 0;
  }
  return fsync(file) == 0 && close(file) == 0;
}

static void test_processors(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  check(CPU_COUNT(&set) == number("cpus"), "number of processors");
  for (int index = 0; index < number("cpus"); index++) {
    char text[64];
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(index, &one);
    snprintf(text, sizeof text, "running on processor %d", index);
    check(sched_setaffinity(0, sizeof one, &one) == 0 && sched_getcpu() == index, text);
  }
  sched_setaffinity(0, sizeof set, &set);
}

// Linux uses at most one queue a processor.
static void test_queues(void) {
  static char log[1 << 16], expected[64];
  long queues = number("queues") < number("cpus") ? number("queues") : number("cpus");
  klogctl(3, log, sizeof log - 1);
  snprintf(expected, sizeof expected, "%ld/0/0 default/read/poll queues", queues);
  check(strstr(log, expected) != NULL, expected);
}

static void test_disk(void) {
  check(mount("/dev/vda", "/disk", "ext2", 0, NULL) == 0, "mount of an ext2 disk");
  uint32_t input = (uint32_t)strtoul(getenv("input") ?: "0", NULL, 10);
  check(input != 0 && file_sum("/disk/input") == input, "read with the host's checksum");
  check(write_file("/disk/output", 1 << 20), "write and fsync of 1 MiB");
  uint32_t before = file_sum("/disk/output");
  // Unmounting drops the page cache, so that the second sum is of what the disk holds.
  check(umount("/disk") == 0, "unmount");
  check(mount("/dev/vda", "/disk", "ext2", MS_RDONLY, NULL) == 0, "second mount, read-only");
  check(before != 0 && file_sum("/disk/output") == before, "reading back what was written");
  check(umount("/disk") == 0, "second unmount");
  printf("linux-test: output %u\n", before);
}

static int set_address(int request, const char *text, int handle) {
  struct ifreq interface = {.ifr_name = "eth0"};
  struct sockaddr_in *address = (struct sockaddr_in *)&interface.ifr_addr;
  address->sin_family = AF_INET;
  inet_pton(AF_INET, text, &address->sin_addr);
  return ioctl(handle, request, &interface) == 0;
}

static uint16_t internet_checksum(const uint8_t *bytes, size_t count) {
  uint32_t sum = 0;
  for (size_t index = 0; index + 1 < count; index += 2) sum += (uint32_t)bytes[index] << 8 | bytes[index + 1];
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons((uint16_t)~sum);
}

// Sends one echo request of `count` bytes and waits for its answer; the payload must come back unchanged.
static int ping(int handle, const struct sockaddr_in *peer, uint16_t sequence, size_t count) {
  uint8_t packet[1500] = {0}, answer[1600];
  struct icmphdr *header = (struct icmphdr *)packet;
  header->type = ICMP_ECHO;
  header->un.echo.id = htons(77);
  header->un.echo.sequence = htons(sequence);
  for (size_t index = sizeof *header; index < count; index++) packet[index] = (uint8_t)(index * 7 + sequence);
  header->checksum = internet_checksum(packet, count);
  if (sendto(handle, packet, count, 0, (const struct sockaddr *)peer, sizeof *peer) != (ssize_t)count) return 0;
  for (;;) {
    ssize_t got = recv(handle, answer, sizeof answer, 0);
    if (got <= 0) return 0;
    size_t start = (size_t)(answer[0] & 15) * 4;
    const struct icmphdr *reply = (const struct icmphdr *)(answer + start);
    if ((size_t)got != start + count || reply->type != ICMP_ECHOREPLY || reply->un.echo.sequence != htons(sequence))
      continue;
    return memcmp(answer + start + sizeof *header, packet + sizeof *header, count - sizeof *header) == 0;
  }
}

static void test_network(void) {
  int control = socket(AF_INET, SOCK_DGRAM, 0);
  struct ifreq interface = {.ifr_name = "eth0"};
  interface.ifr_flags = IFF_UP | IFF_RUNNING;
  check(set_address(SIOCSIFADDR, getenv("address") ?: "", control) && ioctl(control, SIOCSIFFLAGS, &interface) == 0,
        "network interface up");
  struct sockaddr_in peer = {.sin_family = AF_INET};
  inet_pton(AF_INET, getenv("peer") ?: "", &peer.sin_addr);
  int handle = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  struct timeval limit = {.tv_sec = 3};
  setsockopt(handle, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  int answers = 0;
  for (uint16_t sequence = 0; sequence < 10; sequence++)
    answers += ping(handle, &peer, sequence, sequence % 2 ? 1400 : 64);
  printf("linux-test: %d of 10 pings answered\n", answers);
  check(answers == 10, "ping");
  close(handle);
  close(control);
}

static void test_entropy(void) {
  uint8_t bytes[64] = {0};
  int file = open("/dev/hwrng", O_RDONLY), distinct = 0;
  ssize_t count = file < 0 ? 0 : read(file, bytes, sizeof bytes);
  for (ssize_t index = 1; index < count; index++) distinct += bytes[index] != bytes[0];
  check(count > 0 && distinct > count / 2, "random bytes from virtio-rng");
  if (file >= 0) close(file);
}

static double seconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// The host compares the time between the two marks with its own.
static void test_time(void) {
  struct timespec length = {.tv_sec = 10};
  printf("linux-test: mark begin\n");
  fflush(stdout);
  double monotonic = seconds(CLOCK_MONOTONIC), real = seconds(CLOCK_REALTIME);
  nanosleep(&length, NULL);
  monotonic = seconds(CLOCK_MONOTONIC) - monotonic;
  real = seconds(CLOCK_REALTIME) - real;
  printf("linux-test: mark end %.6f %.6f\n", monotonic, real);
  fflush(stdout);
  check(monotonic >= 10 && monotonic < 10.1, "a sleep of 10 s takes 10 s of the guest's time");
}

int main(void) {
  mkdir("/proc", 0755);
  mkdir("/disk", 0755);
  mkdir("/dev", 0755);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
  printf("linux-test: begin\n");
  fflush(stdout);
  test_processors();
  test_queues();
  test_disk();
  test_network();
  if (number("entropy")) test_entropy();
  test_time();
  printf("linux-test: %s\n", failures ? "FAILED" : "passed");
  power_off(failures ? 0x101 : 0);
}
