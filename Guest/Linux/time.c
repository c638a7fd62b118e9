// SPDX-License-Identifier: GPL-2.0
/* The clock, and timers of both kinds. They ring on the program's thread, where interrupts are handled too. */
#include "internal.h"
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include <linux/sched/clock.h>
#include <linux/timekeeping.h>
#include <linux/timer.h>

/* MARK: The clock */
#define NANOSECONDS_PER_JIFFY (NSEC_PER_SEC / HZ)

#undef jiffies
unsigned long volatile jiffies = INITIAL_JIFFIES;
EXPORT_SYMBOL(jiffies);
/* As in Linux, where the linker makes them one variable. */
extern u64 jiffies_64 __attribute__((alias("jiffies")));
EXPORT_SYMBOL(jiffies_64);

u64 sched_clock(void) { return container_host->now(); }
EXPORT_SYMBOL(sched_clock);
ktime_t ktime_get(void) { return container_host->now(); }
EXPORT_SYMBOL(ktime_get);
ktime_t ktime_get_raw(void) { return container_host->now(); }
EXPORT_SYMBOL(ktime_get_raw);
u64 ktime_get_mono_fast_ns(void) { return container_host->now(); }
EXPORT_SYMBOL(ktime_get_mono_fast_ns);
u64 ktime_get_raw_fast_ns(void) { return container_host->now(); }
EXPORT_SYMBOL(ktime_get_raw_fast_ns);
time64_t ktime_get_seconds(void) { return container_host->now() / NSEC_PER_SEC; }
EXPORT_SYMBOL(ktime_get_seconds);
void ktime_get_ts64(struct timespec64 *time)
{
  u64 now = container_host->now();

  time->tv_sec = now / NSEC_PER_SEC;
  time->tv_nsec = now % NSEC_PER_SEC;
}
EXPORT_SYMBOL(ktime_get_ts64);
void ktime_get_raw_ts64(struct timespec64 *time) { ktime_get_ts64(time); }
EXPORT_SYMBOL(ktime_get_raw_ts64);

unsigned int jiffies_to_usecs(const unsigned long count) { return count * (USEC_PER_SEC / HZ); }
EXPORT_SYMBOL(jiffies_to_usecs);
unsigned int jiffies_to_msecs(const unsigned long count) { return count * (MSEC_PER_SEC / HZ); }
EXPORT_SYMBOL(jiffies_to_msecs);
unsigned long __msecs_to_jiffies(const unsigned int count)
{
  return (int)count < 0 ? MAX_JIFFY_OFFSET : _msecs_to_jiffies(count);
}
EXPORT_SYMBOL(__msecs_to_jiffies);
unsigned long __usecs_to_jiffies(const unsigned int count)
{
  return count > jiffies_to_usecs(MAX_JIFFY_OFFSET) ? MAX_JIFFY_OFFSET : _usecs_to_jiffies(count);
}
EXPORT_SYMBOL(__usecs_to_jiffies);
unsigned long nsecs_to_jiffies(u64 count) { return count / NANOSECONDS_PER_JIFFY; }
EXPORT_SYMBOL(nsecs_to_jiffies);

void time_update(void) { jiffies = INITIAL_JIFFIES + container_host->now() / NANOSECONDS_PER_JIFFY; }

/* Spreading timers over processors' ticks has no use here, whole seconds have. */
unsigned long round_jiffies(unsigned long time)
{
  unsigned long rest = time % HZ, rounded = rest < HZ / 4 ? time - rest : time - rest + HZ;

  return time_is_after_jiffies(rounded) ? rounded : time;
}
EXPORT_SYMBOL(round_jiffies);
unsigned long round_jiffies_relative(unsigned long delta) { return round_jiffies(delta + jiffies) - jiffies; }
EXPORT_SYMBOL(round_jiffies_relative);
unsigned long round_jiffies_up(unsigned long time) { return DIV_ROUND_UP(time, HZ) * HZ; }
EXPORT_SYMBOL(round_jiffies_up);

/* MARK: Delays that are not slept through */
static void spin(u64 nanoseconds)
{
  u64 end = container_host->now() + nanoseconds;

  while (container_host->now() < end)
    cpu_relax();
}
void __ndelay(unsigned long nanoseconds) { spin(nanoseconds); }
EXPORT_SYMBOL(__ndelay);
void __udelay(unsigned long microseconds) { spin(microseconds * NSEC_PER_USEC); }
EXPORT_SYMBOL(__udelay);
/* Of udelay and ndelay with constants: fractions of a second, in 2^-32 of it. */
void __const_udelay(unsigned long fraction) { spin((fraction * NSEC_PER_SEC) >> 32); }
EXPORT_SYMBOL(__const_udelay);

/* MARK: Timers in jiffies */
static HLIST_HEAD(all_timers);
/* What a timer that was shut down has for ever. */
static void no_function(struct timer_list *timer) {}

void init_timer_key(
  struct timer_list *timer, void (*function)(struct timer_list *), unsigned int flags, const char *name,
  struct lock_class_key *key)
{
  timer->entry.pprev = NULL;
  timer->function = function;
  timer->flags = flags;
}
EXPORT_SYMBOL(init_timer_key);

static bool take_out(struct timer_list *timer)
{
  if (!timer_pending(timer))
    return false;
  __hlist_del(&timer->entry);
  timer->entry.pprev = NULL;
  return true;
}

static void put_in(struct timer_list *timer, unsigned long expires)
{
  timer->expires = expires;
  if (timer->function && timer->function != no_function)
    hlist_add_head(&timer->entry, &all_timers);
}

int mod_timer(struct timer_list *timer, unsigned long expires)
{
  int was_pending = take_out(timer);

  put_in(timer, expires);
  return was_pending;
}
EXPORT_SYMBOL(mod_timer);
int mod_timer_pending(struct timer_list *timer, unsigned long expires)
{
  return timer_pending(timer) ? mod_timer(timer, expires) : 0;
}
EXPORT_SYMBOL(mod_timer_pending);
int timer_reduce(struct timer_list *timer, unsigned long expires)
{
  if (timer_pending(timer) && time_before_eq(timer->expires, expires))
    return 1;
  return mod_timer(timer, expires);
}
EXPORT_SYMBOL(timer_reduce);
void add_timer(struct timer_list *timer)
{
  if (timer_pending(timer))
    panic("a timer is added twice: %p", timer);
  put_in(timer, timer->expires);
}
EXPORT_SYMBOL(add_timer);
void add_timer_on(struct timer_list *timer, int processor) { add_timer(timer); }
EXPORT_SYMBOL(add_timer_on);

int timer_delete(struct timer_list *timer) { return take_out(timer); }
EXPORT_SYMBOL(timer_delete);
/* A timer's function does not sleep, so it never runs when somebody else does. */
int timer_delete_sync(struct timer_list *timer) { return take_out(timer); }
EXPORT_SYMBOL(timer_delete_sync);
int try_to_del_timer_sync(struct timer_list *timer) { return take_out(timer); }
EXPORT_SYMBOL(try_to_del_timer_sync);
int timer_shutdown(struct timer_list *timer)
{
  int was_pending = take_out(timer);

  timer->function = no_function;
  return was_pending;
}
EXPORT_SYMBOL(timer_shutdown);
int timer_shutdown_sync(struct timer_list *timer) { return timer_shutdown(timer); }
EXPORT_SYMBOL(timer_shutdown_sync);
/* Names of before 6.2, for modules that were built against older updates. */
#undef del_timer
#undef del_timer_sync
int del_timer_of_old(struct timer_list *timer) __asm__("del_timer");
int del_timer_of_old(struct timer_list *timer) { return take_out(timer); }
extern int del_timer_sync_of_old(struct timer_list *timer) __asm__("del_timer_sync");
int del_timer_sync_of_old(struct timer_list *timer) { return take_out(timer); }

/* MARK: Timers in nanoseconds. Their tree's place for links holds a list's. */
static HLIST_HEAD(all_precise);
static struct hrtimer_clock_base monotonic = {.clockid = CLOCK_MONOTONIC, .get_time = ktime_get};
unsigned int hrtimer_resolution = 1;
EXPORT_SYMBOL(hrtimer_resolution);

static struct hlist_node *link_of(struct hrtimer *timer) { return (struct hlist_node *)&timer->node.node; }
static struct hrtimer *precise_of(struct hlist_node *link) { return (struct hrtimer *)link; }
static_assert(offsetof(struct hrtimer, node.node) == 0 && sizeof(struct hlist_node) <= sizeof(struct rb_node));

void hrtimer_init(struct hrtimer *timer, clockid_t clock, enum hrtimer_mode mode)
{
  memset(timer, 0, sizeof(*timer));
  timer->base = &monotonic;
}
EXPORT_SYMBOL(hrtimer_init);

int hrtimer_try_to_cancel(struct hrtimer *timer)
{
  if (!(timer->state & HRTIMER_STATE_ENQUEUED))
    return 0;
  hlist_del(link_of(timer));
  timer->state = HRTIMER_STATE_INACTIVE;
  return 1;
}
EXPORT_SYMBOL(hrtimer_try_to_cancel);
int hrtimer_cancel(struct hrtimer *timer) { return hrtimer_try_to_cancel(timer); }
EXPORT_SYMBOL(hrtimer_cancel);

void hrtimer_start_range_ns(struct hrtimer *timer, ktime_t time, u64 range, const enum hrtimer_mode mode)
{
  hrtimer_try_to_cancel(timer);
  if (mode & HRTIMER_MODE_REL)
    time = ktime_add_safe(ktime_get(), time);
  hrtimer_set_expires_range_ns(timer, time, range);
  timer->state = HRTIMER_STATE_ENQUEUED;
  hlist_add_head(link_of(timer), &all_precise);
}
EXPORT_SYMBOL(hrtimer_start_range_ns);

bool hrtimer_active(const struct hrtimer *timer)
{
  return timer->state != HRTIMER_STATE_INACTIVE || timer->base->running == timer;
}
EXPORT_SYMBOL(hrtimer_active);

ktime_t __hrtimer_get_remaining(const struct hrtimer *timer, bool adjust)
{
  return ktime_sub(hrtimer_get_expires(timer), ktime_get());
}
EXPORT_SYMBOL(__hrtimer_get_remaining);

u64 hrtimer_forward(struct hrtimer *timer, ktime_t now, ktime_t interval)
{
  u64 passed = 1;
  ktime_t late = ktime_sub(now, hrtimer_get_expires(timer));

  if (late < 0 || timer->state & HRTIMER_STATE_ENQUEUED || interval <= 0)
    return 0;
  if (late >= interval) {
    passed = late / interval;
    hrtimer_add_expires_ns(timer, interval * passed);
    if (hrtimer_get_expires(timer) > now)
      return passed;
    passed++;
  }
  hrtimer_add_expires(timer, interval);
  return passed;
}
EXPORT_SYMBOL(hrtimer_forward);

ktime_t ktime_add_safe(const ktime_t left, const ktime_t right)
{
  ktime_t sum = (u64)left + (u64)right;

  return sum < 0 || sum < left || sum < right ? KTIME_MAX : sum;
}
EXPORT_SYMBOL(ktime_add_safe);

static enum hrtimer_restart wake_sleeper(struct hrtimer *timer)
{
  struct hrtimer_sleeper *sleeper = container_of(timer, struct hrtimer_sleeper, timer);
  struct task_struct *task = sleeper->task;

  sleeper->task = NULL;
  if (task)
    wake_up_process(task);
  return HRTIMER_NORESTART;
}

int schedule_hrtimeout_range(ktime_t *expires, u64 range, const enum hrtimer_mode mode)
{
  struct hrtimer_sleeper sleeper = {.task = current};

  if (!expires) {
    schedule();
    return -EINTR;
  }
  hrtimer_init(&sleeper.timer, CLOCK_MONOTONIC, mode);
  sleeper.timer.function = wake_sleeper;
  hrtimer_start_range_ns(&sleeper.timer, *expires, range, mode);
  schedule();
  hrtimer_cancel(&sleeper.timer);
  __set_current_state(TASK_RUNNING);
  return sleeper.task ? -EINTR : 0;
}
EXPORT_SYMBOL(schedule_hrtimeout_range);
int schedule_hrtimeout(ktime_t *expires, const enum hrtimer_mode mode)
{
  return schedule_hrtimeout_range(expires, 0, mode);
}
EXPORT_SYMBOL(schedule_hrtimeout);

/* MARK: When they ring */
/* Those that are due, the earliest first; what their functions start again for now waits for the next round. */
static void ring_next(struct hlist_head *due)
{
  struct timer_list *timer, *first = NULL;

  /* Of equal ones the one that was started first, which is the last of the list. */
  hlist_for_each_entry (timer, due, entry)
    if (!first || time_before_eq(timer->expires, first->expires))
      first = timer;
  take_out(first);
  first->function(first);
}

static void ring_next_precise(struct hlist_head *due)
{
  struct hrtimer *first = NULL;
  struct hlist_node *link;

  hlist_for_each (link, due)
    if (!first || hrtimer_get_expires(precise_of(link)) <= hrtimer_get_expires(first))
      first = precise_of(link);
  hlist_del(link_of(first));
  first->state = HRTIMER_STATE_INACTIVE;
  monotonic.running = first;
  if (first->function(first) == HRTIMER_RESTART && !(first->state & HRTIMER_STATE_ENQUEUED))
    hrtimer_start_range_ns(first, hrtimer_get_expires(first), 0, HRTIMER_MODE_ABS);
  monotonic.running = NULL;
}

int timers_run(void)
{
  HLIST_HEAD(due);
  HLIST_HEAD(precise_due);
  struct hlist_node *next, *link, *last = NULL;
  struct timer_list *timer;
  u64 now;
  int found = 0;

  if (hlist_empty(&all_timers) && hlist_empty(&all_precise))
    return 0;
  now = container_host->now();
  hlist_for_each_entry_safe (timer, next, &all_timers, entry) {
    if (!time_before_eq(timer->expires, jiffies))
      continue;
    __hlist_del(&timer->entry);
    if (last)
      hlist_add_behind(&timer->entry, last);
    else
      hlist_add_head(&timer->entry, &due);
    last = &timer->entry;
  }
  last = NULL;
  for (link = all_precise.first; link; link = next) {
    next = link->next;
    if (hrtimer_get_expires(precise_of(link)) > (s64)now)
      continue;
    hlist_del(link);
    if (last)
      hlist_add_behind(link, last);
    else
      hlist_add_head(link, &precise_due);
    last = link;
  }
  /* A function may take others out of these lists, too. */
  for (; !hlist_empty(&due); found = 1)
    ring_next(&due);
  for (; !hlist_empty(&precise_due); found = 1)
    ring_next_precise(&precise_due);
  return found;
}

/* When the next one rings, by the clock of `now`; the largest number: there is none. */
unsigned long timers_next(void)
{
  unsigned long next = ULONG_MAX;
  struct timer_list *timer;
  struct hlist_node *link;

  hlist_for_each_entry (timer, &all_timers, entry) {
    unsigned long ticks = timer->expires - INITIAL_JIFFIES;

    /* So far away that nobody will see it, or already over. */
    if ((long)ticks < 0)
      ticks = 0;
    next = min(next, ticks > ULONG_MAX / NANOSECONDS_PER_JIFFY ? ULONG_MAX - 1 : ticks * NANOSECONDS_PER_JIFFY);
  }
  hlist_for_each (link, &all_precise)
    next = min(next, (unsigned long)max_t(s64, hrtimer_get_expires(precise_of(link)), 0));
  return next;
}
