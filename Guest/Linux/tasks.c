// SPDX-License-Identifier: GPL-2.0
/*
 * Tasks: the program's own thread, and kthreads, which are stacks of their own on it. A task runs until it sleeps; then the program's
 * thread runs the next that can go on, or waits for an interrupt or a time. So nothing runs beside anything else.
 */
#include "internal.h"
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/semaphore.h>
#include <linux/swait.h>
#include <linux/timer.h>
#include <linux/wait.h>

/* A task as Linux sees it, and what it needs to run. */
struct thread {
  struct task_struct task;
  /* Where it goes on. */
  void *stack_pointer;
  void *stack;
  struct list_head ready;
  bool is_ready, should_stop, should_park;
  int (*function)(void *);
  void *argument;
  int result;
  struct completion parked, exited;
};

static struct thread program = {.task = {.comm = "linux-container", .usage = REFCOUNT_INIT(1)}};
static LIST_HEAD(all_ready);
/* Of a thread that has ended; its stack is still in use until somebody else runs. */
static struct thread *ended;

/* Variables of the processor are the variables themselves (processor.c). */
DEFINE_PER_CPU(struct task_struct *, current_task) = &program.task;
EXPORT_PER_CPU_SYMBOL(current_task);

static struct thread *thread_of(struct task_struct *task) { return container_of(task, struct thread, task); }

/* MARK: Switching */
/* Saves what a function has to keep, and goes on where the other stack was left. */
void task_switch(void **from, void *to);
asm(".text\n"
    "task_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\n"
    "movq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\n"
    "ret\n");

static void run(struct thread *thread)
{
  struct thread *self = thread_of(current);

  this_cpu_write(current_task, &thread->task);
  task_switch(&self->stack_pointer, thread->stack_pointer);
}

static void make_ready(struct thread *thread)
{
  if (thread->is_ready)
    return;
  thread->is_ready = true;
  list_add_tail(&thread->ready, &all_ready);
}

static void drop_ended(void)
{
  struct thread *thread = ended;

  ended = NULL;
  if (!thread)
    return;
  container_host->stack_free(thread->stack);
  thread->stack = NULL;
  put_task_struct(&thread->task);
}

int tasks_run(void)
{
  LIST_HEAD(batch);
  int found = 0;

  /* Each once: who is woken meanwhile comes in the next round. */
  list_splice_init(&all_ready, &batch);
  while (!list_empty(&batch)) {
    struct thread *thread = list_first_entry(&batch, struct thread, ready);

    list_del(&thread->ready);
    thread->is_ready = false;
    found = 1;
    run(thread);
    drop_ended();
  }
  return found;
}

int tasks_are_ready(void) { return !list_empty(&all_ready); }

/* The program's thread sleeps: the others run, and devices and times are attended to. */
static void program_sleep(void)
{
  time_update();
  timers_run();
  tasklets_run();
  if (!tasks_run() && !work_start() && READ_ONCE(program.task.__state) != TASK_RUNNING)
    container_host->wait(timers_next());
}

void schedule(void)
{
  struct thread *self = thread_of(current);

  if (preempt_count() != INIT_PREEMPT_COUNT)
    panic("%s sleeps where it must not", self->task.comm);
  if (self == &program) {
    do
      program_sleep();
    while (READ_ONCE(program.task.__state) != TASK_RUNNING);
    return;
  }
  /* Woken in between, or only polite: behind the others. */
  if (READ_ONCE(self->task.__state) == TASK_RUNNING)
    make_ready(self);
  run(&program);
}
EXPORT_SYMBOL(schedule);

void yield(void)
{
  __set_current_state(TASK_RUNNING);
  schedule();
}
EXPORT_SYMBOL(yield);

static int wake(struct task_struct *task, unsigned int states)
{
  if (!(READ_ONCE(task->__state) & states))
    return 0;
  WRITE_ONCE(task->__state, TASK_RUNNING);
  if (thread_of(task) != &program && task != current)
    make_ready(thread_of(task));
  return 1;
}

int wake_up_process(struct task_struct *task) { return wake(task, TASK_NORMAL | __TASK_STOPPED); }
EXPORT_SYMBOL(wake_up_process);

void __put_task_struct(struct task_struct *task)
{
  if (task == &program.task)
    panic("the program's task is given back");
  kfree(thread_of(task));
}
EXPORT_SYMBOL(__put_task_struct);

/* MARK: kthreads */
void kthread_exit(long result)
{
  struct thread *self = thread_of(current);

  self->result = result;
  ended = self;
  WRITE_ONCE(self->task.__state, TASK_DEAD);
  complete_all(&self->parked);
  complete_all(&self->exited);
  run(&program);
  panic("a kthread that has ended runs");
}
EXPORT_SYMBOL(kthread_exit);

void kthread_complete_and_exit(struct completion *completion, long result)
{
  if (completion)
    complete(completion);
  kthread_exit(result);
}
EXPORT_SYMBOL(kthread_complete_and_exit);

static void kthread_begin(void)
{
  struct thread *self = thread_of(current);

  kthread_exit(self->should_stop ? -EINTR : self->function(self->argument));
}

struct task_struct *kthread_create_on_node(int (*function)(void *), void *argument, int node, const char name[], ...)
{
  static pid_t next = 2;
  struct thread *thread = kzalloc(sizeof(*thread), GFP_KERNEL);
  va_list arguments;
  void **top;

  if (!thread)
    return ERR_PTR(-ENOMEM);
  thread->stack = container_host->stack((void **)&top);
  if (!thread->stack) {
    kfree(thread);
    return ERR_PTR(-ENOMEM);
  }
  va_start(arguments, name);
  print_text(thread->task.comm, sizeof(thread->task.comm), name, arguments);
  va_end(arguments);
  thread->task.pid = thread->task.tgid = next++;
  thread->task.flags = PF_KTHREAD;
  thread->task.__state = TASK_UNINTERRUPTIBLE;
  refcount_set(&thread->task.usage, 1);
  thread->function = function;
  thread->argument = argument;
  init_completion(&thread->parked);
  init_completion(&thread->exited);
  /* A frame for the debugger to end at, where the function returns to, and six registers. */
  *--top = NULL;
  *--top = kthread_begin;
  top -= 6;
  memset(top, 0, 6 * sizeof(*top));
  thread->stack_pointer = top;
  return &thread->task;
}
EXPORT_SYMBOL(kthread_create_on_node);

struct task_struct *kthread_create_on_cpu(
  int (*function)(void *), void *argument, unsigned int processor, const char *name)
{
  return kthread_create_on_node(function, argument, NUMA_NO_NODE, name, processor);
}
EXPORT_SYMBOL(kthread_create_on_cpu);

void kthread_bind(struct task_struct *task, unsigned int processor) {}
EXPORT_SYMBOL(kthread_bind);

int kthread_stop(struct task_struct *task)
{
  struct thread *thread = thread_of(task);
  int result;

  get_task_struct(task);
  thread->should_stop = true;
  kthread_unpark(task);
  wake_up_process(task);
  wait_for_completion(&thread->exited);
  result = thread->result;
  put_task_struct(task);
  return result;
}
EXPORT_SYMBOL(kthread_stop);

bool kthread_should_stop(void) { return thread_of(current)->should_stop; }
EXPORT_SYMBOL(kthread_should_stop);
bool __kthread_should_park(struct task_struct *task) { return thread_of(task)->should_park; }
EXPORT_SYMBOL(__kthread_should_park);
bool kthread_should_park(void) { return __kthread_should_park(current); }
EXPORT_SYMBOL(kthread_should_park);
bool kthread_freezable_should_stop(bool *was_frozen)
{
  if (was_frozen)
    *was_frozen = false;
  return kthread_should_stop();
}
EXPORT_SYMBOL(kthread_freezable_should_stop);
void *kthread_data(struct task_struct *task) { return thread_of(task)->argument; }
EXPORT_SYMBOL(kthread_data);
void *kthread_func(struct task_struct *task) { return thread_of(task)->function; }
EXPORT_SYMBOL(kthread_func);

void kthread_parkme(void)
{
  struct thread *self = thread_of(current);

  while (self->should_park) {
    set_current_state(TASK_PARKED);
    complete(&self->parked);
    schedule();
  }
  __set_current_state(TASK_RUNNING);
}
EXPORT_SYMBOL(kthread_parkme);

int kthread_park(struct task_struct *task)
{
  struct thread *thread = thread_of(task);

  if (READ_ONCE(task->__state) == TASK_DEAD)
    return -ENOSYS;
  if (thread->should_park)
    return -EBUSY;
  thread->should_park = true;
  if (task != current) {
    wake_up_process(task);
    wait_for_completion(&thread->parked);
  }
  return 0;
}
EXPORT_SYMBOL(kthread_park);

void kthread_unpark(struct task_struct *task)
{
  if (!thread_of(task)->should_park)
    return;
  thread_of(task)->should_park = false;
  reinit_completion(&thread_of(task)->parked);
  wake(task, TASK_PARKED);
}
EXPORT_SYMBOL(kthread_unpark);

/* MARK: Sleeping for a time */
struct sleeper {
  struct timer_list timer;
  struct task_struct *task;
};

static void sleeper_wakes(struct timer_list *timer) { wake_up_process(container_of(timer, struct sleeper, timer)->task); }

long schedule_timeout(long timeout)
{
  struct sleeper sleeper = {.task = current};
  unsigned long end;

  if (timeout == MAX_SCHEDULE_TIMEOUT) {
    schedule();
    return timeout;
  }
  time_update();
  end = jiffies + max(timeout, 0l);
  timer_setup_on_stack(&sleeper.timer, sleeper_wakes, 0);
  mod_timer(&sleeper.timer, end);
  schedule();
  timer_delete(&sleeper.timer);
  time_update();
  return max((long)(end - jiffies), 0l);
}
EXPORT_SYMBOL(schedule_timeout);

long schedule_timeout_interruptible(long timeout)
{
  __set_current_state(TASK_INTERRUPTIBLE);
  return schedule_timeout(timeout);
}
EXPORT_SYMBOL(schedule_timeout_interruptible);
long schedule_timeout_uninterruptible(long timeout)
{
  __set_current_state(TASK_UNINTERRUPTIBLE);
  return schedule_timeout(timeout);
}
EXPORT_SYMBOL(schedule_timeout_uninterruptible);
long schedule_timeout_killable(long timeout)
{
  __set_current_state(TASK_KILLABLE);
  return schedule_timeout(timeout);
}
EXPORT_SYMBOL(schedule_timeout_killable);
long schedule_timeout_idle(long timeout)
{
  __set_current_state(TASK_IDLE);
  return schedule_timeout(timeout);
}
EXPORT_SYMBOL(schedule_timeout_idle);

void msleep(unsigned int milliseconds)
{
  long timeout = msecs_to_jiffies(milliseconds) + 1;

  while (timeout)
    timeout = schedule_timeout_uninterruptible(timeout);
}
EXPORT_SYMBOL(msleep);
unsigned long msleep_interruptible(unsigned int milliseconds)
{
  msleep(milliseconds);
  return 0;
}
EXPORT_SYMBOL(msleep_interruptible);

void usleep_range_state(unsigned long least, unsigned long most, unsigned int state)
{
  ktime_t end = ktime_add_us(ktime_get(), least);

  do {
    __set_current_state(state);
    schedule_hrtimeout(&end, HRTIMER_MODE_ABS);
  } while (ktime_before(ktime_get(), end));
}
EXPORT_SYMBOL(usleep_range_state);

/* MARK: Wait queues */
void __init_waitqueue_head(struct wait_queue_head *queue, const char *name, struct lock_class_key *key)
{
  spin_lock_init(&queue->lock);
  INIT_LIST_HEAD(&queue->head);
}
EXPORT_SYMBOL(__init_waitqueue_head);

void init_wait_entry(struct wait_queue_entry *entry, int flags)
{
  entry->flags = flags;
  entry->private = current;
  entry->func = autoremove_wake_function;
  INIT_LIST_HEAD(&entry->entry);
}
EXPORT_SYMBOL(init_wait_entry);

void add_wait_queue(struct wait_queue_head *queue, struct wait_queue_entry *entry)
{
  entry->flags &= ~WQ_FLAG_EXCLUSIVE;
  list_add(&entry->entry, &queue->head);
}
EXPORT_SYMBOL(add_wait_queue);
void add_wait_queue_exclusive(struct wait_queue_head *queue, struct wait_queue_entry *entry)
{
  entry->flags |= WQ_FLAG_EXCLUSIVE;
  list_add_tail(&entry->entry, &queue->head);
}
EXPORT_SYMBOL(add_wait_queue_exclusive);
void remove_wait_queue(struct wait_queue_head *queue, struct wait_queue_entry *entry) { list_del(&entry->entry); }
EXPORT_SYMBOL(remove_wait_queue);

void prepare_to_wait(struct wait_queue_head *queue, struct wait_queue_entry *entry, int state)
{
  entry->flags &= ~WQ_FLAG_EXCLUSIVE;
  if (list_empty(&entry->entry))
    list_add(&entry->entry, &queue->head);
  set_current_state(state);
}
EXPORT_SYMBOL(prepare_to_wait);

bool prepare_to_wait_exclusive(struct wait_queue_head *queue, struct wait_queue_entry *entry, int state)
{
  bool was_empty = false;

  entry->flags |= WQ_FLAG_EXCLUSIVE;
  if (list_empty(&entry->entry)) {
    was_empty = list_empty(&queue->head);
    list_add_tail(&entry->entry, &queue->head);
  }
  set_current_state(state);
  return was_empty;
}
EXPORT_SYMBOL(prepare_to_wait_exclusive);

long prepare_to_wait_event(struct wait_queue_head *queue, struct wait_queue_entry *entry, int state)
{
  /* Nobody sends signals here. */
  if (list_empty(&entry->entry)) {
    if (entry->flags & WQ_FLAG_EXCLUSIVE)
      list_add_tail(&entry->entry, &queue->head);
    else
      list_add(&entry->entry, &queue->head);
  }
  set_current_state(state);
  return 0;
}
EXPORT_SYMBOL(prepare_to_wait_event);

void finish_wait(struct wait_queue_head *queue, struct wait_queue_entry *entry)
{
  __set_current_state(TASK_RUNNING);
  if (!list_empty(&entry->entry))
    list_del_init(&entry->entry);
}
EXPORT_SYMBOL(finish_wait);

int default_wake_function(struct wait_queue_entry *entry, unsigned int mode, int flags, void *key)
{
  return wake(entry->private, mode);
}
EXPORT_SYMBOL(default_wake_function);

int autoremove_wake_function(struct wait_queue_entry *entry, unsigned int mode, int flags, void *key)
{
  int result = default_wake_function(entry, mode, flags, key);

  if (result)
    list_del_init(&entry->entry);
  return result;
}
EXPORT_SYMBOL(autoremove_wake_function);

int woken_wake_function(struct wait_queue_entry *entry, unsigned int mode, int flags, void *key)
{
  entry->flags |= WQ_FLAG_WOKEN;
  return default_wake_function(entry, mode, flags, key);
}
EXPORT_SYMBOL(woken_wake_function);

long wait_woken(struct wait_queue_entry *entry, unsigned int mode, long timeout)
{
  set_current_state(mode);
  if (!(entry->flags & WQ_FLAG_WOKEN) && !kthread_should_stop())
    timeout = schedule_timeout(timeout);
  __set_current_state(TASK_RUNNING);
  entry->flags &= ~WQ_FLAG_WOKEN;
  return timeout;
}
EXPORT_SYMBOL(wait_woken);

/* Everybody who shares the queue, and `most` of those who want it alone (0: all). */
int __wake_up(struct wait_queue_head *queue, unsigned int mode, int most, void *key)
{
  struct wait_queue_entry *entry, *next;
  int woken = 0;

  list_for_each_entry_safe (entry, next, &queue->head, entry) {
    unsigned int flags = entry->flags;
    int result = entry->func(entry, mode, 0, key);

    if (result < 0)
      break;
    if (!result)
      continue;
    woken++;
    if (flags & WQ_FLAG_EXCLUSIVE && !--most)
      break;
  }
  return woken;
}
EXPORT_SYMBOL(__wake_up);
void __wake_up_sync(struct wait_queue_head *queue, unsigned int mode) { __wake_up(queue, mode, 1, NULL); }
EXPORT_SYMBOL(__wake_up_sync);
void __wake_up_sync_key(struct wait_queue_head *queue, unsigned int mode, void *key) { __wake_up(queue, mode, 1, key); }
EXPORT_SYMBOL(__wake_up_sync_key);
void __wake_up_locked(struct wait_queue_head *queue, unsigned int mode, int most)
{
  __wake_up(queue, mode, most, NULL);
}
EXPORT_SYMBOL(__wake_up_locked);
void __wake_up_locked_key(struct wait_queue_head *queue, unsigned int mode, void *key)
{
  __wake_up(queue, mode, 1, key);
}
EXPORT_SYMBOL(__wake_up_locked_key);

/* Sleeps in `list` until somebody wakes its first. */
static long sleep_in(struct list_head *list, unsigned int state, long timeout)
{
  struct swait_queue entry = {.task = current};

  list_add_tail(&entry.task_list, list);
  set_current_state(state);
  timeout = schedule_timeout(timeout);
  __set_current_state(TASK_RUNNING);
  if (!list_empty(&entry.task_list))
    list_del_init(&entry.task_list);
  return timeout;
}

static void wake_first(struct list_head *list)
{
  struct swait_queue *entry = list_first_entry_or_null(list, struct swait_queue, task_list);

  if (!entry)
    return;
  list_del_init(&entry->task_list);
  wake(entry->task, TASK_NORMAL);
}

static void wake_all(struct list_head *list)
{
  while (!list_empty(list))
    wake_first(list);
}

void __init_swait_queue_head(struct swait_queue_head *queue, const char *name, struct lock_class_key *key)
{
  raw_spin_lock_init(&queue->lock);
  INIT_LIST_HEAD(&queue->task_list);
}
EXPORT_SYMBOL(__init_swait_queue_head);
void swake_up_one(struct swait_queue_head *queue) { wake_first(&queue->task_list); }
EXPORT_SYMBOL(swake_up_one);
void swake_up_all(struct swait_queue_head *queue) { wake_all(&queue->task_list); }
EXPORT_SYMBOL(swake_up_all);

/* MARK: Completions */
void complete(struct completion *completion)
{
  if (completion->done != UINT_MAX)
    completion->done++;
  wake_first(&completion->wait.task_list);
}
EXPORT_SYMBOL(complete);
void complete_all(struct completion *completion)
{
  completion->done = UINT_MAX;
  wake_all(&completion->wait.task_list);
}
EXPORT_SYMBOL(complete_all);

bool try_wait_for_completion(struct completion *completion)
{
  if (!completion->done)
    return false;
  if (completion->done != UINT_MAX)
    completion->done--;
  return true;
}
EXPORT_SYMBOL(try_wait_for_completion);
bool completion_done(struct completion *completion) { return completion->done != 0; }
EXPORT_SYMBOL(completion_done);

/* What is left of the time, at least 1; 0: it is over. */
static long wait_done(struct completion *completion, unsigned int state, long timeout)
{
  while (!try_wait_for_completion(completion)) {
    if (!timeout)
      return 0;
    timeout = sleep_in(&completion->wait.task_list, state, timeout);
  }
  return max(timeout, 1l);
}

void wait_for_completion(struct completion *completion)
{
  wait_done(completion, TASK_UNINTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
}
EXPORT_SYMBOL(wait_for_completion);
void wait_for_completion_io(struct completion *completion) { wait_for_completion(completion); }
EXPORT_SYMBOL(wait_for_completion_io);
unsigned long wait_for_completion_timeout(struct completion *completion, unsigned long timeout)
{
  return wait_done(completion, TASK_UNINTERRUPTIBLE, timeout);
}
EXPORT_SYMBOL(wait_for_completion_timeout);
unsigned long wait_for_completion_io_timeout(struct completion *completion, unsigned long timeout)
{
  return wait_for_completion_timeout(completion, timeout);
}
EXPORT_SYMBOL(wait_for_completion_io_timeout);
int wait_for_completion_interruptible(struct completion *completion)
{
  wait_done(completion, TASK_INTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
  return 0;
}
EXPORT_SYMBOL(wait_for_completion_interruptible);
long wait_for_completion_interruptible_timeout(struct completion *completion, unsigned long timeout)
{
  return wait_done(completion, TASK_INTERRUPTIBLE, timeout);
}
EXPORT_SYMBOL(wait_for_completion_interruptible_timeout);
long wait_for_completion_killable_timeout(struct completion *completion, unsigned long timeout)
{
  return wait_done(completion, TASK_KILLABLE, timeout);
}
EXPORT_SYMBOL(wait_for_completion_killable_timeout);

/* The program gives up such a wait when it has set an end, or when the device brings nothing more. */
int wait_for_completion_killable(struct completion *completion)
{
  while (!wait_done(completion, TASK_KILLABLE, patience_end ? HZ / 50 : MAX_SCHEDULE_TIMEOUT))
    if (patience_end && (container_host->now() >= patience_end || device_is_stuck()))
      return -ERESTARTSYS;
  return 0;
}
EXPORT_SYMBOL(wait_for_completion_killable);

/* MARK: Locks that are slept for */
void __mutex_init(struct mutex *lock, const char *name, struct lock_class_key *key)
{
  atomic_long_set(&lock->owner, 0);
  raw_spin_lock_init(&lock->wait_lock);
  INIT_LIST_HEAD(&lock->wait_list);
}
EXPORT_SYMBOL(__mutex_init);

void mutex_lock(struct mutex *lock)
{
  while (atomic_long_read(&lock->owner)) {
    if (atomic_long_read(&lock->owner) == (long)current)
      panic("%s takes a mutex twice: %p", current->comm, lock);
    sleep_in(&lock->wait_list, TASK_UNINTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
  }
  atomic_long_set(&lock->owner, (long)current);
}
EXPORT_SYMBOL(mutex_lock);
int mutex_lock_interruptible(struct mutex *lock)
{
  mutex_lock(lock);
  return 0;
}
EXPORT_SYMBOL(mutex_lock_interruptible);
int mutex_lock_killable(struct mutex *lock) { return mutex_lock_interruptible(lock); }
EXPORT_SYMBOL(mutex_lock_killable);
void mutex_lock_io(struct mutex *lock) { mutex_lock(lock); }
EXPORT_SYMBOL(mutex_lock_io);

int mutex_trylock(struct mutex *lock)
{
  if (atomic_long_read(&lock->owner))
    return 0;
  atomic_long_set(&lock->owner, (long)current);
  return 1;
}
EXPORT_SYMBOL(mutex_trylock);
bool mutex_is_locked(struct mutex *lock) { return atomic_long_read(&lock->owner) != 0; }
EXPORT_SYMBOL(mutex_is_locked);

void mutex_unlock(struct mutex *lock)
{
  atomic_long_set(&lock->owner, 0);
  wake_first(&lock->wait_list);
}
EXPORT_SYMBOL(mutex_unlock);

int atomic_dec_and_mutex_lock(atomic_t *count, struct mutex *lock)
{
  if (atomic_add_unless(count, -1, 1))
    return 0;
  mutex_lock(lock);
  if (atomic_dec_and_test(count))
    return 1;
  mutex_unlock(lock);
  return 0;
}
EXPORT_SYMBOL(atomic_dec_and_mutex_lock);

static int down_within(struct semaphore *semaphore, long timeout)
{
  while (!semaphore->count) {
    if (!timeout)
      return -ETIME;
    timeout = sleep_in(&semaphore->wait_list, TASK_UNINTERRUPTIBLE, timeout);
  }
  semaphore->count--;
  return 0;
}
void down(struct semaphore *semaphore) { down_within(semaphore, MAX_SCHEDULE_TIMEOUT); }
EXPORT_SYMBOL(down);
int down_interruptible(struct semaphore *semaphore) { return down_within(semaphore, MAX_SCHEDULE_TIMEOUT); }
EXPORT_SYMBOL(down_interruptible);
int down_killable(struct semaphore *semaphore) { return down_within(semaphore, MAX_SCHEDULE_TIMEOUT); }
EXPORT_SYMBOL(down_killable);
int down_timeout(struct semaphore *semaphore, long timeout) { return down_within(semaphore, timeout); }
EXPORT_SYMBOL(down_timeout);
int down_trylock(struct semaphore *semaphore) { return down_within(semaphore, 0) ? 1 : 0; }
EXPORT_SYMBOL(down_trylock);
void up(struct semaphore *semaphore)
{
  semaphore->count++;
  wake_first(&semaphore->wait_list);
}
EXPORT_SYMBOL(up);

/* `count` is the number of readers, or -1: a writer. Who waits looks again whenever somebody leaves. */
void __init_rwsem(struct rw_semaphore *lock, const char *name, struct lock_class_key *key)
{
  atomic_long_set(&lock->count, RWSEM_UNLOCKED_VALUE);
  atomic_long_set(&lock->owner, 0);
  raw_spin_lock_init(&lock->wait_lock);
  INIT_LIST_HEAD(&lock->wait_list);
}
EXPORT_SYMBOL(__init_rwsem);

int down_read_trylock(struct rw_semaphore *lock)
{
  if (atomic_long_read(&lock->count) < 0)
    return 0;
  atomic_long_inc(&lock->count);
  return 1;
}
EXPORT_SYMBOL(down_read_trylock);
int down_write_trylock(struct rw_semaphore *lock)
{
  if (atomic_long_read(&lock->count))
    return 0;
  atomic_long_set(&lock->count, -1);
  return 1;
}
EXPORT_SYMBOL(down_write_trylock);
void down_read(struct rw_semaphore *lock)
{
  while (!down_read_trylock(lock))
    sleep_in(&lock->wait_list, TASK_UNINTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
}
EXPORT_SYMBOL(down_read);
int down_read_interruptible(struct rw_semaphore *lock)
{
  down_read(lock);
  return 0;
}
EXPORT_SYMBOL(down_read_interruptible);
int down_read_killable(struct rw_semaphore *lock) { return down_read_interruptible(lock); }
EXPORT_SYMBOL(down_read_killable);
void down_write(struct rw_semaphore *lock)
{
  while (!down_write_trylock(lock))
    sleep_in(&lock->wait_list, TASK_UNINTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
}
EXPORT_SYMBOL(down_write);
int down_write_killable(struct rw_semaphore *lock)
{
  down_write(lock);
  return 0;
}
EXPORT_SYMBOL(down_write_killable);
void up_read(struct rw_semaphore *lock)
{
  atomic_long_dec(&lock->count);
  wake_all(&lock->wait_list);
}
EXPORT_SYMBOL(up_read);
void up_write(struct rw_semaphore *lock)
{
  atomic_long_set(&lock->count, 0);
  wake_all(&lock->wait_list);
}
EXPORT_SYMBOL(up_write);
void downgrade_write(struct rw_semaphore *lock)
{
  atomic_long_set(&lock->count, 1);
  wake_all(&lock->wait_list);
}
EXPORT_SYMBOL(downgrade_write);
