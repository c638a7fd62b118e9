// The programs of tokens.S, which lie in one page that is copied as a whole.
#ifndef TOKEN_CHILDREN_H
#define TOKEN_CHILDREN_H
#include <stdint.h>

#pragma clang attribute push(__attribute__((visibility("hidden"))), apply_to = variable(is_global))
extern const uint8_t token_children_start[], token_children_end[];
extern const uint8_t token_child_serve[], token_child_store[], token_child_load[], token_child_store_once[];
extern const uint8_t token_child_wait[], token_child_random[];
#pragma clang attribute pop

#define TOKEN_CHILD(name) \
  static inline uint64_t token_offset_##name(void) { return (uint64_t)(token_child_##name - token_children_start); }
TOKEN_CHILD(serve)
TOKEN_CHILD(store)
TOKEN_CHILD(load)
TOKEN_CHILD(store_once)
TOKEN_CHILD(wait)
TOKEN_CHILD(random)

static inline const void *token_children_base(void) { return token_children_start; }
static inline uint64_t token_children_size(void) { return (uint64_t)(token_children_end - token_children_start); }
#endif
