// SPDX-License-Identifier: GPL-2.0
/* The one processor and its variables, numbers by chance. */
#include "internal.h"
#include <linux/bottom_half.h>
#include <linux/cpuhotplug.h>
#include <linux/cpumask.h>
#include <linux/interrupt.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
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
/* What a variable's address and its copy's differ by: nothing. */
unsigned long __per_cpu_offset[NR_CPUS];
EXPORT_SYMBOL(__per_cpu_offset);
void __percpu *__alloc_percpu_gfp(size_t size, size_t align, gfp_t flags)
{
  return (void __percpu *)kzalloc(max(size, align), flags);
}
EXPORT_SYMBOL(__alloc_percpu_gfp);
void __percpu *__alloc_percpu(size_t size, size_t align) { return __alloc_percpu_gfp(size, align, GFP_KERNEL); }
EXPORT_SYMBOL(__alloc_percpu);
void free_percpu(void __percpu *memory) { kfree((void *)memory); }
EXPORT_SYMBOL(free_percpu);

struct cpumask __cpu_online_mask = {.bits = {1}};
EXPORT_SYMBOL(__cpu_online_mask);
struct cpumask __cpu_possible_mask = {.bits = {1}};
EXPORT_SYMBOL(__cpu_possible_mask);
struct cpumask __cpu_present_mask = {.bits = {1}};
EXPORT_SYMBOL(__cpu_present_mask);
DEFINE_PER_CPU(int, numa_node);
EXPORT_PER_CPU_SYMBOL(numa_node);
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
int _raw_spin_trylock_bh(raw_spinlock_t *lock)
{
  if (atomic_read(&lock->raw_lock.val))
    return 0;
  _raw_spin_lock_bh(lock);
  return 1;
}
EXPORT_SYMBOL(_raw_spin_trylock_bh);

/* Of readers and writers: `cnts` is the number of readers, or -1. Nothing else runs, so whoever finds it taken is inside himself. */
static void take_reading(rwlock_t *lock)
{
  if (atomic_read(&lock->raw_lock.cnts) < 0)
    panic("a lock is taken for reading while it is for writing: %p", lock);
  atomic_inc(&lock->raw_lock.cnts);
}
static void take_writing(rwlock_t *lock)
{
  if (atomic_read(&lock->raw_lock.cnts))
    panic("a lock is taken for writing while it is taken: %p", lock);
  atomic_set(&lock->raw_lock.cnts, -1);
}
#define READERS_AND_WRITERS(name, take, leave) \
  void _raw_##name##_lock(rwlock_t *lock) { take(lock); } \
  EXPORT_SYMBOL(_raw_##name##_lock); \
  void _raw_##name##_lock_irq(rwlock_t *lock) { take(lock); } \
  EXPORT_SYMBOL(_raw_##name##_lock_irq); \
  void _raw_##name##_lock_bh(rwlock_t *lock) \
  { \
    take(lock); \
    __preempt_count_add(SOFTIRQ_LOCK_OFFSET); \
  } \
  EXPORT_SYMBOL(_raw_##name##_lock_bh); \
  unsigned long _raw_##name##_lock_irqsave(rwlock_t *lock) \
  { \
    take(lock); \
    return 0; \
  } \
  EXPORT_SYMBOL(_raw_##name##_lock_irqsave); \
  void _raw_##name##_unlock(rwlock_t *lock) { leave; } \
  EXPORT_SYMBOL(_raw_##name##_unlock); \
  void _raw_##name##_unlock_irq(rwlock_t *lock) { leave; } \
  EXPORT_SYMBOL(_raw_##name##_unlock_irq); \
  void _raw_##name##_unlock_bh(rwlock_t *lock) \
  { \
    __preempt_count_sub(SOFTIRQ_LOCK_OFFSET); \
    leave; \
  } \
  EXPORT_SYMBOL(_raw_##name##_unlock_bh); \
  void _raw_##name##_unlock_irqrestore(rwlock_t *lock, unsigned long flags) { leave; } \
  EXPORT_SYMBOL(_raw_##name##_unlock_irqrestore)
READERS_AND_WRITERS(read, take_reading, atomic_dec(&lock->raw_lock.cnts));
READERS_AND_WRITERS(write, take_writing, atomic_set(&lock->raw_lock.cnts, 0));

bool refcount_dec_and_mutex_lock(refcount_t *count, struct mutex *lock)
{
  if (refcount_dec_not_one(count))
    return false;
  mutex_lock(lock);
  if (refcount_dec_and_test(count))
    return true;
  mutex_unlock(lock);
  return false;
}
EXPORT_SYMBOL(refcount_dec_and_mutex_lock);
bool refcount_dec_not_one(refcount_t *count)
{
  unsigned int value = refcount_read(count);

  if (value == 1)
    return false;
  if (value != REFCOUNT_SATURATED)
    atomic_set(&count->refs, value - 1);
  return true;
}
EXPORT_SYMBOL(refcount_dec_not_one);
bool refcount_dec_if_one(refcount_t *count)
{
  if (refcount_read(count) != 1)
    return false;
  atomic_set(&count->refs, 0);
  return true;
}
EXPORT_SYMBOL(refcount_dec_if_one);

/* What waits for readers that are none: done at the next occasion, on the program's thread. */
static struct rcu_head *first_grace, **last_grace = &first_grace;
static void grace_run(struct tasklet_struct *unused)
{
  struct rcu_head *head, *next = first_grace;

  first_grace = NULL;
  last_grace = &first_grace;
  while ((head = next)) {
    next = head->next;
    head->func(head);
  }
}
static DECLARE_TASKLET(grace, grace_run);

void call_rcu(struct rcu_head *head, rcu_callback_t function)
{
  head->func = function;
  head->next = NULL;
  *last_grace = head;
  last_grace = &head->next;
  tasklet_schedule(&grace);
}
EXPORT_SYMBOL(call_rcu);
void rcu_barrier(void)
{
  while (first_grace)
    grace_run(NULL);
}
EXPORT_SYMBOL(rcu_barrier);
void synchronize_rcu_expedited(void) {}
EXPORT_SYMBOL(synchronize_rcu_expedited);
/* `head` lies in what is to be freed, `object` is that. */
void kvfree_call_rcu(struct rcu_head *head, rcu_callback_t object) { kvfree((void *)object); }
EXPORT_SYMBOL(kvfree_call_rcu);

/* Preemption and rescheduling: static calls that lead nowhere. */
asm(".text\n"
    ".globl __SCT__cond_resched, __SCT__preempt_schedule, __SCT__preempt_schedule_notrace\n"
    "__SCT__cond_resched: xor %eax, %eax\n"
    "ret\n"
    "__SCT__preempt_schedule:\n"
    "__SCT__preempt_schedule_notrace: ret\n");
extern int __SCT__cond_resched(void);
EXPORT_SYMBOL(__SCT__cond_resched);
extern void __SCT__preempt_schedule(void);
EXPORT_SYMBOL(__SCT__preempt_schedule);
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

u32 get_random_u32(void)
{
  u32 value;

  get_random_bytes(&value, sizeof(value));
  return value;
}
EXPORT_SYMBOL(get_random_u32);
u64 get_random_u64(void)
{
  u64 value;

  get_random_bytes(&value, sizeof(value));
  return value;
}
EXPORT_SYMBOL(get_random_u64);
u16 get_random_u16(void) { return get_random_u32(); }
EXPORT_SYMBOL(get_random_u16);
u8 get_random_u8(void) { return get_random_u32(); }
EXPORT_SYMBOL(get_random_u8);
u32 __get_random_u32_below(u32 ceiling) { return (u64)get_random_u32() * ceiling >> 32; }
EXPORT_SYMBOL(__get_random_u32_below);

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
