// What the two measuring init processes share: the clock, and random places. Deterministic, so that runs are alike.
#ifndef CASTOR_TEST_REQUESTS_H
#define CASTOR_TEST_REQUESTS_H

#include <stdint.h>
#include <time.h>

// The most requests in flight.
enum { DEEPEST = 128 };

// The next of a row of random numbers (xorshift64).
static inline uint64_t throw_dice(void) {
  static uint64_t dice = 88172645463325252ull;
  dice ^= dice << 13;
  dice ^= dice >> 7;
  dice ^= dice << 17;
  return dice;
}

// Seconds since some moment.
static inline double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

#endif
