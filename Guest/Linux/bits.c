// SPDX-License-Identifier: GPL-2.0
/* Sets of bits, balanced trees, sorting, and arithmetic. */
#include "internal.h"
#include <linux/bitmap.h>
#include <linux/bsearch.h>
#include <linux/gcd.h>
#include <linux/lcm.h>
#include <linux/list_sort.h>
#include <linux/rbtree.h>
#include <linux/sort.h>

/* MARK: Finding bits */
/* The first at or behind `start` whose bit is set in the words that `WORD` makes; `size`: there is none. */
#define FIND(name, parameters, WORD) \
  unsigned long name parameters \
  { \
    unsigned long index = start / BITS_PER_LONG, word; \
    if (start >= size) \
      return size; \
    word = (WORD) & BITMAP_FIRST_WORD_MASK(start); \
    for (;;) { \
      if (word) \
        return min(index * BITS_PER_LONG + __ffs(word), size); \
      if (++index * BITS_PER_LONG >= size) \
        return size; \
      word = (WORD); \
    } \
  } \
  EXPORT_SYMBOL(name)
FIND(_find_next_bit, (const unsigned long *words, unsigned long size, unsigned long start), words[index]);
FIND(_find_next_zero_bit, (const unsigned long *words, unsigned long size, unsigned long start), ~words[index]);
FIND(_find_next_and_bit,
     (const unsigned long *words, const unsigned long *others, unsigned long size, unsigned long start),
     words[index] & others[index]);
FIND(_find_next_andnot_bit,
     (const unsigned long *words, const unsigned long *others, unsigned long size, unsigned long start),
     words[index] & ~others[index]);

unsigned long _find_first_bit(const unsigned long *words, unsigned long size) { return _find_next_bit(words, size, 0); }
EXPORT_SYMBOL(_find_first_bit);
unsigned long _find_first_zero_bit(const unsigned long *words, unsigned long size)
{
  return _find_next_zero_bit(words, size, 0);
}
EXPORT_SYMBOL(_find_first_zero_bit);
unsigned long _find_first_and_bit(const unsigned long *words, const unsigned long *others, unsigned long size)
{
  return _find_next_and_bit(words, others, size, 0);
}
EXPORT_SYMBOL(_find_first_and_bit);
unsigned long _find_last_bit(const unsigned long *words, unsigned long size)
{
  unsigned long index = BITS_TO_LONGS(size), word;

  while (index--) {
    word = words[index];
    if (index == size / BITS_PER_LONG)
      word &= BITMAP_LAST_WORD_MASK(size);
    if (word)
      return index * BITS_PER_LONG + __fls(word);
  }
  return size;
}
EXPORT_SYMBOL(_find_last_bit);

unsigned int __sw_hweight32(unsigned int word)
{
  unsigned int count = 0;

  for (; word; word &= word - 1)
    count++;
  return count;
}
EXPORT_SYMBOL(__sw_hweight32);
unsigned long __sw_hweight64(u64 word) { return __sw_hweight32(word) + __sw_hweight32(word >> 32); }
EXPORT_SYMBOL(__sw_hweight64);

/* MARK: Whole sets */
unsigned long *bitmap_alloc(unsigned int size, gfp_t flags)
{
  return kmalloc_array(BITS_TO_LONGS(size), sizeof(unsigned long), flags);
}
EXPORT_SYMBOL(bitmap_alloc);
unsigned long *bitmap_zalloc(unsigned int size, gfp_t flags) { return bitmap_alloc(size, flags | __GFP_ZERO); }
EXPORT_SYMBOL(bitmap_zalloc);
void bitmap_free(const unsigned long *words) { kfree(words); }
EXPORT_SYMBOL(bitmap_free);

void __bitmap_set(unsigned long *words, unsigned int start, int count)
{
  for (; count > 0; count--, start++)
    __set_bit(start, words);
}
EXPORT_SYMBOL(__bitmap_set);
void __bitmap_clear(unsigned long *words, unsigned int start, int count)
{
  for (; count > 0; count--, start++)
    __clear_bit(start, words);
}
EXPORT_SYMBOL(__bitmap_clear);
unsigned int __bitmap_weight(const unsigned long *words, unsigned int size)
{
  unsigned int bit, count = 0;

  for_each_set_bit (bit, words, size)
    count++;
  return count;
}
EXPORT_SYMBOL(__bitmap_weight);

/* Bits beyond `size` are left as they come, but do not count in answers. */
#define LAST(index) ((index) == size / BITS_PER_LONG ? BITMAP_LAST_WORD_MASK(size) : ~0ul)
#define ASK(name, BAD) \
  bool name(const unsigned long *one, const unsigned long *other, unsigned int size) \
  { \
    unsigned int index; \
    for (index = 0; index < BITS_TO_LONGS(size); index++) \
      if ((BAD) & LAST(index)) \
        return false; \
    return true; \
  } \
  EXPORT_SYMBOL(name)
ASK(__bitmap_equal, one[index] ^ other[index]);
ASK(__bitmap_subset, one[index] & ~other[index]);
bool __bitmap_intersects(const unsigned long *one, const unsigned long *other, unsigned int size)
{
  return _find_first_and_bit(one, other, size) < size;
}
EXPORT_SYMBOL(__bitmap_intersects);

#define COMBINE(name, RESULT) \
  void name(unsigned long *target, const unsigned long *one, const unsigned long *other, unsigned int size) \
  { \
    unsigned int index; \
    for (index = 0; index < BITS_TO_LONGS(size); index++) \
      target[index] = (RESULT); \
  } \
  EXPORT_SYMBOL(name)
COMBINE(__bitmap_or, one[index] | other[index]);
COMBINE(__bitmap_xor, one[index] ^ other[index]);
#define COMBINE_AND_TELL(name, RESULT) \
  bool name(unsigned long *target, const unsigned long *one, const unsigned long *other, unsigned int size) \
  { \
    unsigned int index; \
    unsigned long any = 0; \
    for (index = 0; index < BITS_TO_LONGS(size); index++) \
      any |= target[index] = (RESULT) & LAST(index); \
    return any != 0; \
  } \
  EXPORT_SYMBOL(name)
COMBINE_AND_TELL(__bitmap_and, one[index] & other[index]);
COMBINE_AND_TELL(__bitmap_andnot, one[index] & ~other[index]);
void __bitmap_complement(unsigned long *target, const unsigned long *source, unsigned int size)
{
  unsigned int index;

  for (index = 0; index < BITS_TO_LONGS(size); index++)
    target[index] = ~source[index];
}
EXPORT_SYMBOL(__bitmap_complement);

/* `count` zeros from `start` on, at a place that with `offset` is a multiple of `mask` + 1; beyond `size`: there are none. */
unsigned long bitmap_find_next_zero_area_off(
  unsigned long *words, unsigned long size, unsigned long start, unsigned int count, unsigned long mask,
  unsigned long offset)
{
  for (;;) {
    unsigned long place = _find_next_zero_bit(words, size, start), taken;

    place = (((place + offset) + mask) & ~mask) - offset;
    if (place + count > size)
      return place + count;
    taken = _find_next_bit(words, place + count, place);
    if (taken >= place + count)
      return place;
    start = taken + 1;
  }
}
EXPORT_SYMBOL(bitmap_find_next_zero_area_off);

/* MARK: Balanced trees (red and black). A node's parent and colour are one word. */
#define RB_BLACK_BIT 1ul
static struct rb_node *parent_of(const struct rb_node *node) { return (struct rb_node *)(node->__rb_parent_color & ~3ul); }
static bool is_red(const struct rb_node *node) { return node && !(node->__rb_parent_color & RB_BLACK_BIT); }
static void set_parent(struct rb_node *node, struct rb_node *parent)
{
  node->__rb_parent_color = (unsigned long)parent | (node->__rb_parent_color & RB_BLACK_BIT);
}
static void set_red(struct rb_node *node, bool red)
{
  node->__rb_parent_color = red ? node->__rb_parent_color & ~RB_BLACK_BIT : node->__rb_parent_color | RB_BLACK_BIT;
}

/* Where the tree points to `old`, it points to `new` from now on. */
static void put_in_place(struct rb_root *root, struct rb_node *parent, struct rb_node *old, struct rb_node *new)
{
  if (!parent)
    root->rb_node = new;
  else if (parent->rb_left == old)
    parent->rb_left = new;
  else
    parent->rb_right = new;
}

/* The child on the other side takes the node's place, and the node becomes its child. */
static void rotate(struct rb_root *root, struct rb_node *node, bool left)
{
  struct rb_node *child = left ? node->rb_right : node->rb_left;
  struct rb_node *moved = left ? child->rb_left : child->rb_right;
  struct rb_node *parent = parent_of(node);

  if (left) {
    node->rb_right = moved;
    child->rb_left = node;
  } else {
    node->rb_left = moved;
    child->rb_right = node;
  }
  if (moved)
    set_parent(moved, node);
  put_in_place(root, parent, node, child);
  set_parent(child, parent);
  set_parent(node, child);
}

/* The new node is red; two reds in a row are moved up until they can be resolved. */
void rb_insert_color(struct rb_node *node, struct rb_root *root)
{
  struct rb_node *parent, *above, *uncle;

  set_red(node, true);
  while ((parent = parent_of(node)) && is_red(parent)) {
    bool is_left;

    above = parent_of(parent);
    is_left = above->rb_left == parent;
    uncle = is_left ? above->rb_right : above->rb_left;
    if (is_red(uncle)) {
      set_red(parent, false);
      set_red(uncle, false);
      set_red(above, true);
      node = above;
      continue;
    }
    if ((parent->rb_left == node) != is_left) {
      rotate(root, parent, is_left);
      swap(node, parent);
    }
    set_red(parent, false);
    set_red(above, true);
    rotate(root, above, !is_left);
  }
  set_red(root->rb_node, false);
}
EXPORT_SYMBOL(rb_insert_color);

/* Below `parent`, at `node` (perhaps nothing), paths have one black node too few. */
static void rb_mend(struct rb_root *root, struct rb_node *node, struct rb_node *parent)
{
  struct rb_node *sibling, *near, *far;

  while (parent && !is_red(node)) {
    bool is_left = parent->rb_left == node;

    sibling = is_left ? parent->rb_right : parent->rb_left;
    if (is_red(sibling)) {
      set_red(sibling, false);
      set_red(parent, true);
      rotate(root, parent, is_left);
      sibling = is_left ? parent->rb_right : parent->rb_left;
    }
    near = is_left ? sibling->rb_left : sibling->rb_right;
    far = is_left ? sibling->rb_right : sibling->rb_left;
    if (!is_red(near) && !is_red(far)) {
      set_red(sibling, true);
      node = parent;
      parent = parent_of(node);
      continue;
    }
    if (!is_red(far)) {
      set_red(near, false);
      set_red(sibling, true);
      rotate(root, sibling, !is_left);
      far = sibling;
      sibling = near;
    }
    set_red(sibling, is_red(parent));
    set_red(parent, false);
    set_red(far, false);
    rotate(root, parent, is_left);
    return;
  }
  if (node)
    set_red(node, false);
}

void rb_erase(struct rb_node *node, struct rb_root *root)
{
  struct rb_node *parent = parent_of(node), *child;
  bool was_red = is_red(node);

  if (node->rb_left && node->rb_right) {
    /* The next node takes its place and colour; what is taken out is the next node's place. */
    struct rb_node *next = rb_next(node);

    was_red = is_red(next);
    child = next->rb_right;
    if (parent_of(next) == node) {
      put_in_place(root, parent, node, next);
      parent = next;
    } else {
      struct rb_node *above = parent;

      parent = parent_of(next);
      parent->rb_left = child;
      next->rb_right = node->rb_right;
      set_parent(next->rb_right, next);
      put_in_place(root, above, node, next);
    }
    next->rb_left = node->rb_left;
    set_parent(next->rb_left, next);
    next->__rb_parent_color = node->__rb_parent_color;
  } else {
    child = node->rb_left ? node->rb_left : node->rb_right;
    put_in_place(root, parent, node, child);
  }
  if (child)
    set_parent(child, parent);
  if (!was_red)
    rb_mend(root, child, parent);
}
EXPORT_SYMBOL(rb_erase);

void rb_replace_node(struct rb_node *old, struct rb_node *new, struct rb_root *root)
{
  *new = *old;
  if (new->rb_left)
    set_parent(new->rb_left, new);
  if (new->rb_right)
    set_parent(new->rb_right, new);
  put_in_place(root, parent_of(old), old, new);
}
EXPORT_SYMBOL(rb_replace_node);

static struct rb_node *outermost(struct rb_node *node, bool left)
{
  while (node && (left ? node->rb_left : node->rb_right))
    node = left ? node->rb_left : node->rb_right;
  return node;
}
struct rb_node *rb_first(const struct rb_root *root) { return outermost(root->rb_node, true); }
EXPORT_SYMBOL(rb_first);
struct rb_node *rb_last(const struct rb_root *root) { return outermost(root->rb_node, false); }
EXPORT_SYMBOL(rb_last);

static struct rb_node *neighbour(const struct rb_node *node, bool next)
{
  struct rb_node *child = next ? node->rb_right : node->rb_left, *parent;

  if (RB_EMPTY_NODE(node))
    return NULL;
  if (child)
    return outermost(child, next);
  for (; (parent = parent_of(node)) && node == (next ? parent->rb_right : parent->rb_left); node = parent)
    ;
  return parent;
}
struct rb_node *rb_next(const struct rb_node *node) { return neighbour(node, true); }
EXPORT_SYMBOL(rb_next);
struct rb_node *rb_prev(const struct rb_node *node) { return neighbour(node, false); }
EXPORT_SYMBOL(rb_prev);

/* Children before their parent. */
static struct rb_node *deepest(struct rb_node *node)
{
  while (node && (node->rb_left || node->rb_right))
    node = node->rb_left ? node->rb_left : node->rb_right;
  return node;
}
struct rb_node *rb_first_postorder(const struct rb_root *root) { return deepest(root->rb_node); }
EXPORT_SYMBOL(rb_first_postorder);
struct rb_node *rb_next_postorder(const struct rb_node *node)
{
  struct rb_node *parent = node ? parent_of(node) : NULL;

  return parent && node == parent->rb_left && parent->rb_right ? deepest(parent->rb_right) : parent;
}
EXPORT_SYMBOL(rb_next_postorder);

/* MARK: Sorting and searching */
/* A heap, so that it takes no memory and no more than n log n steps. */
void sort_r(
  void *base, size_t count, size_t size, cmp_r_func_t compare, swap_r_func_t exchange, const void *context)
{
  char *memory = base;
  size_t start = count / 2, end = count;

#define AT(index) (memory + (index) * size)
  while (end > 1) {
    size_t parent, child;

    if (start) {
      start--;
    } else {
      size_t byte;

      end--;
      if (exchange)
        exchange(AT(0), AT(end), size, context);
      else
        for (byte = 0; byte < size; byte++)
          swap(AT(0)[byte], AT(end)[byte]);
    }
    for (parent = start; (child = parent * 2 + 1) < end; parent = child) {
      size_t byte;

      if (child + 1 < end && compare(AT(child), AT(child + 1), context) < 0)
        child++;
      if (compare(AT(parent), AT(child), context) >= 0)
        break;
      if (exchange)
        exchange(AT(parent), AT(child), size, context);
      else
        for (byte = 0; byte < size; byte++)
          swap(AT(parent)[byte], AT(child)[byte]);
    }
  }
#undef AT
}
EXPORT_SYMBOL(sort_r);

struct plain_sort {
  cmp_func_t compare;
  swap_func_t exchange;
};
static int plain_compare(const void *one, const void *other, const void *context)
{
  return ((const struct plain_sort *)context)->compare(one, other);
}
static void plain_exchange(void *one, void *other, int size, const void *context)
{
  ((const struct plain_sort *)context)->exchange(one, other, size);
}
void sort(void *base, size_t count, size_t size, cmp_func_t compare, swap_func_t exchange)
{
  struct plain_sort functions = {compare, exchange};

  sort_r(base, count, size, plain_compare, exchange ? plain_exchange : NULL, &functions);
}
EXPORT_SYMBOL(sort);

void *bsearch(const void *key, const void *base, size_t count, size_t size, cmp_func_t compare)
{
  const char *start = base;

  while (count) {
    const char *middle = start + count / 2 * size;
    int result = compare(key, middle);

    if (!result)
      return (void *)middle;
    if (result > 0) {
      start = middle + size;
      count--;
    }
    count /= 2;
  }
  return NULL;
}
EXPORT_SYMBOL(bsearch);

/* Merges runs of 1, 2, 4 … elements, what is equal in the order it had. */
void list_sort(void *context, struct list_head *head, list_cmp_func_t compare)
{
  size_t run, merges;

  if (list_empty(head))
    return;
  for (run = 1, merges = 2; merges > 1; run *= 2) {
    LIST_HEAD(done);

    for (merges = 0; !list_empty(head); merges++) {
      LIST_HEAD(left);
      size_t count, right = run;

      for (count = 0; count < run && !list_empty(head); count++)
        list_move_tail(head->next, &left);
      while (!list_empty(&left) || (right && !list_empty(head))) {
        bool takes_left = !list_empty(&left) &&
                          (!right || list_empty(head) || compare(context, left.next, head->next) <= 0);

        if (!takes_left)
          right--;
        list_move_tail(takes_left ? left.next : head->next, &done);
      }
    }
    list_splice(&done, head);
  }
}
EXPORT_SYMBOL(list_sort);

/* MARK: Arithmetic */
unsigned long gcd(unsigned long one, unsigned long other)
{
  while (other) {
    unsigned long rest = one % other;

    one = other;
    other = rest;
  }
  return one;
}
EXPORT_SYMBOL(gcd);
unsigned long lcm(unsigned long one, unsigned long other) { return one && other ? one / gcd(one, other) * other : 0; }
EXPORT_SYMBOL(lcm);
unsigned long int_sqrt(unsigned long value)
{
  unsigned long root = 0, bit;

  for (bit = 1ul << (BITS_PER_LONG / 2 - 1); bit; bit >>= 1)
    if ((root | bit) * (root | bit) <= value)
      root |= bit;
  return root;
}
EXPORT_SYMBOL(int_sqrt);
