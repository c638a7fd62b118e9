// SPDX-License-Identifier: GPL-2.0
/* The one processor and its variables, numbers by chance. */
#include "internal.h"
#include <linux/bottom_half.h>
#include <linux/cpuhotplug.h>
#include <linux/cpumask.h>
#include <linux/interrupt.h>
#include <linux/percpu.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/string.h>

/*
 * MARK: Variables of the processor. The segment GS begins at 0 in a process, so `%gs:variable` is the variable itself: the template of
 * the one processor is its copy.
 */
DEFINE_PER_CPU(int, __preempt_count) = INIT_PREEMPT_COUNT;
EXPORT_PER_CPU_SYMBOL(__preempt_count);
DEFINE_PER_CPU_READ_MOSTLY(int, cpu_number);
EXPORT_PER_CPU_SYMBOL(cpu_number);
DEFINE_PER_CPU_READ_MOSTLY(unsigned long, this_cpu_off);
EXPORT_PER_CPU_SYMBOL(this_cpu_off);

struct cpumask __cpu_online_mask = {.bits = {1}};
EXPORT_SYMBOL(__cpu_online_mask);
atomic_t __num_online_cpus = ATOMIC_INIT(1);
EXPORT_SYMBOL(__num_online_cpus);

void cpus_read_lock(void) {}
EXPORT_SYMBOL(cpus_read_lock);
void cpus_read_unlock(void) {}
EXPORT_SYMBOL(cpus_read_unlock);

/* Processors never come or go, so nobody is called; numbers are given as Linux does. */
int __cpuhp_setup_state(
  enum cpuhp_state state, const char *name, bool invoke, int (*startup)(unsigned int), int (*teardown)(unsigned int),
  bool several)
{
  static int next = CPUHP_AP_ONLINE_DYN;

  return state == CPUHP_AP_ONLINE_DYN ? next++ : 0;
}
EXPORT_SYMBOL(__cpuhp_setup_state);
void __cpuhp_remove_state(enum cpuhp_state state, bool invoke) {}
EXPORT_SYMBOL(__cpuhp_remove_state);
int __cpuhp_state_add_instance(enum cpuhp_state state, struct hlist_node *node, bool invoke) { return 0; }
EXPORT_SYMBOL(__cpuhp_state_add_instance);
int __cpuhp_state_remove_instance(enum cpuhp_state state, struct hlist_node *node, bool invoke) { return 0; }
EXPORT_SYMBOL(__cpuhp_state_remove_instance);

unsigned long _find_first_bit(const unsigned long *words, unsigned long size)
{
  unsigned long index;

  for (index = 0; index * BITS_PER_LONG < size; index++)
    if (words[index])
      return min(index * BITS_PER_LONG + __ffs(words[index]), size);
  return size;
}
EXPORT_SYMBOL(_find_first_bit);

/* There is bit 0 only. */
unsigned int cpumask_next_wrap(int last, const struct cpumask *mask, int start, bool wrap)
{
  bool is_set = mask->bits[0] & 1;

  if (!is_set || (wrap && last >= start) || last >= 0)
    return nr_cpu_ids;
  return 0;
}
EXPORT_SYMBOL(cpumask_next_wrap);

bool alloc_cpumask_var_node(cpumask_var_t *mask, gfp_t flags, int node)
{
  *mask = kzalloc(sizeof(struct cpumask), flags);
  return *mask != NULL;
}
EXPORT_SYMBOL(alloc_cpumask_var_node);
void free_cpumask_var(cpumask_var_t mask) { kfree(mask); }
EXPORT_SYMBOL(free_cpumask_var);

/* MARK: Sections. Code runs until it waits, so they are only counted where Linux's headers count them. */
void __rcu_read_lock(void) {}
EXPORT_SYMBOL(__rcu_read_lock);
void __rcu_read_unlock(void) {}
EXPORT_SYMBOL(__rcu_read_unlock);

void __local_bh_enable_ip(unsigned long address, unsigned int count) { __preempt_count_sub(count); }
EXPORT_SYMBOL(__local_bh_enable_ip);
void _raw_spin_lock_bh(raw_spinlock_t *lock)
{
  _raw_spin_lock(lock);
  __preempt_count_add(SOFTIRQ_LOCK_OFFSET);
}
EXPORT_SYMBOL(_raw_spin_lock_bh);
void _raw_spin_unlock_bh(raw_spinlock_t *lock)
{
  __preempt_count_sub(SOFTIRQ_LOCK_OFFSET);
  _raw_spin_unlock(lock);
}
EXPORT_SYMBOL(_raw_spin_unlock_bh);
int _raw_spin_trylock(raw_spinlock_t *lock)
{
  if (atomic_read(&lock->raw_lock.val))
    return 0;
  _raw_spin_lock(lock);
  return 1;
}
EXPORT_SYMBOL(_raw_spin_trylock);

/* Preemption and rescheduling: static calls that lead nowhere. */
asm(".text\n"
    ".globl __SCT__cond_resched, __SCT__preempt_schedule_notrace\n"
    "__SCT__cond_resched: xor %eax, %eax\n"
    "ret\n"
    "__SCT__preempt_schedule_notrace: ret\n");
extern int __SCT__cond_resched(void);
EXPORT_SYMBOL(__SCT__cond_resched);
extern void __SCT__preempt_schedule_notrace(void);
EXPORT_SYMBOL(__SCT__preempt_schedule_notrace);

/* MARK: Numbers by chance: for addresses and hashing, from the processor where it has a source, and the time. */
static bool has_random_instruction(void)
{
  unsigned int a = 1, b, c = 0, d;

  asm("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return c >> 30 & 1;
}

void get_random_bytes(void *buffer, size_t length)
{
  static u64 state;
  bool has_source = has_random_instruction();
  u8 *bytes = buffer;

  while (length--) {
    unsigned long drawn = 0;

    if (has_source)
      asm volatile("rdrand %0" : "+r"(drawn) : : "cc");
    state = (state ^ drawn ^ rdtsc()) * 0x9e3779b97f4a7c15ull + 1;
    *bytes++ = state >> 56;
  }
}
EXPORT_SYMBOL(get_random_bytes);

/* MARK: Text and memory */
void *kmemdup(const void *source, size_t length, gfp_t flags)
{
  void *copy = kmalloc(length, flags);

  if (copy)
    memcpy(copy, source, length);
  return copy;
}
EXPORT_SYMBOL(kmemdup);

ssize_t strscpy(char *target, const char *source, size_t size)
{
  size_t length;

  if (!size)
    return -E2BIG;
  for (length = 0; length + 1 < size && source[length]; length++)
    WRITE_ONCE(target[length], source[length]);
  target[length] = 0;
  return source[length] ? -E2BIG : length;
}
EXPORT_SYMBOL(strscpy);
