// The C names of the allocator; the allocator itself is Pollux/Heap.swift.
#include <stddef.h>

void *pollux_allocate(size_t alignment, size_t size);
void pollux_release(void *block);

int posix_memalign(void **block, size_t alignment, size_t size) {
  void *found = pollux_allocate(alignment, size);
  if (!found) return 12;
  *block = found;
  return 0;
}
void free(void *block) { pollux_release(block); }
