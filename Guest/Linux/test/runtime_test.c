// SPDX-License-Identifier: GPL-2.0
/*
 * A module of the tests: whether the loader sets parameters of every kind, whether code goes on behind a warning and at the fixup of an
 * exception, whether work that is put off runs when its time has come and nothing else happens, and whether kthreads, work that
 * sleeps, timers, wait queues and locks do what Linux's do. It says what it sees; the test reads it.
 */
#define INCLUDE_VERMAGIC
#include <linux/bitmap.h>
#include <linux/bsearch.h>
#include <linux/completion.h>
#include <linux/ctype.h>
#include <linux/delay.h>
#include <linux/gcd.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/lcm.h>
#include <linux/list_sort.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/ratelimit.h>
#include <linux/rbtree.h>
#include <linux/rcupdate.h>
#include <linux/rwsem.h>
#include <linux/semaphore.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/timer.h>
#include <linux/vermagic.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <asm/asm.h>

static unsigned char small;
static short negative;
static unsigned long large;
static bool on, off = true;
static char *text = "";
static char name[8];
static int list[4], list_count;
module_param(small, byte, 0444);
module_param(negative, short, 0444);
module_param(large, ulong, 0444);
module_param(on, bool, 0444);
module_param(off, bool, 0444);
module_param(text, charp, 0444);
module_param_string(name, name, sizeof(name), 0444);
module_param_array(list, int, &list_count, 0444);

static unsigned long begin;
static int rounds;
static void later(struct work_struct *work);
static DECLARE_DELAYED_WORK(work, later);

static void later(struct work_struct *unused)
{
  printk("runtime test: work %d after %lu ms\n", ++rounds, (jiffies - begin) * 1000 / HZ);
  if (rounds < 3)
    schedule_delayed_work(&work, HZ / 5);
}

/* MARK: Exceptions */
/* -EFAULT, or what lies there. */
static noinline long load(unsigned long address)
{
  long value = 0, error = 0;

  asm volatile("1: movq (%[address]), %[value]\n2:\n" _ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_EFAULT_REG, %[error])
               : [value] "+r"(value), [error] "+r"(error)
               : [address] "r"(address));
  return error ? error : value;
}

/* Whether the instruction may be executed here. */
static noinline int read_register(unsigned int number)
{
  int error = 0;
  unsigned int low = 0, high = 0;

  asm volatile("1: rdmsr\n2:\n" _ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_RDMSR_SAFE, %[error])
               : "+a"(low), "+d"(high), [error] "+r"(error)
               : "c"(number));
  return error;
}

static noinline void once(int round) { WARN_ON_ONCE(round >= 0); }

static void exceptions(void)
{
  static long here = 4711;
  int round;

  printk("runtime test: loads %ld %ld %ld\n", load((unsigned long)&here), load(0x30), load(0xffff888000000000));
  printk("runtime test: rdmsr %d\n", read_register(0x10));
  for (round = 0; round < 3; round++)
    once(round);
  WARN(1, "runtime test: a warning with %d\n", 42);
  printk("runtime test: behind the warnings\n");
}

/* MARK: Tasks */
static DEFINE_MUTEX(mutex);
static DECLARE_RWSEM(shared);
static DEFINE_SEMAPHORE(semaphore);
static DECLARE_WAIT_QUEUE_HEAD(queue);
static DECLARE_COMPLETION(first_done);
static struct task_struct *server;
static int asked, answered, inside, most_inside, holders;

/* Answers questions until it is stopped. */
static int serve(void *data)
{
  while (!kthread_should_stop()) {
    wait_event(queue, asked > answered || kthread_should_stop());
    if (asked > answered) {
      msleep(2);
      answered++;
      wake_up(&queue);
    }
  }
  return *(int *)data;
}

static int hold(void *data)
{
  int round;

  for (round = 0; round < 3; round++) {
    mutex_lock(&mutex);
    inside++;
    most_inside = max(most_inside, inside);
    usleep_range(300, 600);
    inside--;
    mutex_unlock(&mutex);
    schedule();
  }
  down_read(&shared);
  msleep(5);
  up_read(&shared);
  down(&semaphore);
  if (++holders == 3)
    complete(&first_done);
  up(&semaphore);
  return 0;
}

static void tasks(void)
{
  static int result = 77;
  unsigned long begin;
  int index;

  printk("runtime test: in %s, %d\n", current->comm, current->flags & PF_KTHREAD ? 1 : 0);
  server = kthread_run(serve, &result, "server/%d", 5);
  printk("runtime test: server %s\n", server->comm);
  for (index = 0; index < 5; index++) {
    asked++;
    wake_up(&queue);
    if (!wait_event_timeout(queue, answered == asked, HZ))
      printk("runtime test: no answer\n");
  }
  printk("runtime test: %d answers\n", answered);
  printk("runtime test: a wait that is in vain %d\n", wait_event_timeout(queue, false, HZ / 50) == 0);
  begin = jiffies;
  down_write(&shared);
  for (index = 0; index < 3; index++)
    kthread_run(hold, NULL, "holder/%d", index);
  msleep(40);
  printk("runtime test: holders %d of 0\n", holders);
  up_write(&shared);
  wait_for_completion(&first_done);
  printk("runtime test: at most %d inside, holders %d, took time %d\n", most_inside, holders, jiffies - begin >= HZ / 25);
  printk("runtime test: server ended with %d\n", kthread_stop(server));
  printk("runtime test: timeout %lu\n", wait_for_completion_timeout(&first_done, HZ / 100));
}

/* MARK: Timers and tasklets */
static struct timer_list timer;
static struct hrtimer precise;
static struct tasklet_struct tasklet;
static int rings, precise_rings, tasklets;

static void ring(struct timer_list *unused)
{
  if (++rings < 4)
    mod_timer(&timer, jiffies + 2);
  tasklet_schedule(&tasklet);
}
static enum hrtimer_restart ring_precisely(struct hrtimer *self)
{
  hrtimer_forward_now(self, ns_to_ktime(3 * NSEC_PER_MSEC));
  return ++precise_rings < 6 ? HRTIMER_RESTART : HRTIMER_NORESTART;
}
static void tasklet_runs(struct tasklet_struct *unused) { tasklets++; }

static void timers(void)
{
  unsigned long begin = jiffies;

  timer_setup(&timer, ring, 0);
  hrtimer_init(&precise, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
  precise.function = ring_precisely;
  tasklet_setup(&tasklet, tasklet_runs);
  mod_timer(&timer, jiffies + 2);
  hrtimer_start(&precise, ns_to_ktime(3 * NSEC_PER_MSEC), HRTIMER_MODE_REL);
  while ((rings < 4 || precise_rings < 6) && time_before(jiffies, begin + 2 * HZ))
    msleep(5);
  printk("runtime test: rings %d %d, tasklets %d, pending %d %d\n", rings, precise_rings, tasklets, timer_pending(&timer),
         hrtimer_active(&precise));
  mod_timer(&timer, jiffies + HZ);
  printk("runtime test: taken back %d %d\n", del_timer_sync(&timer), del_timer_sync(&timer));
}

/* MARK: Work */
static struct workqueue_struct *ordered;
static int order[4], order_count;
static struct order_work {
  struct work_struct work;
  int number;
} works[4];

static void note(struct work_struct *work)
{
  struct order_work *own = container_of(work, struct order_work, work);

  /* The first sleep longest. */
  msleep(25 * (4 - own->number));
  if (order_count < 4)
    order[order_count++] = own->number;
}

static void queues(void)
{
  int round, index;

  ordered = alloc_ordered_workqueue("ordered/%d", 0, 1);
  for (round = 0; round < 2; round++) {
    order_count = 0;
    for (index = 0; index < 4; index++) {
      works[index].number = index;
      INIT_WORK(&works[index].work, note);
      queue_work(round ? system_wq : ordered, &works[index].work);
    }
    for (index = 0; index < 4; index++)
      flush_work(&works[index].work);
    printk("runtime test: %s work %d %d %d %d\n", round ? "parallel" : "ordered", order[0], order[1], order[2], order[3]);
  }
  queue_work(ordered, &works[0].work);
  printk("runtime test: queued twice %d\n", queue_work(ordered, &works[0].work));
  printk("runtime test: cancelled %d %d\n", cancel_work_sync(&works[0].work), cancel_work_sync(&works[0].work));
  destroy_workqueue(ordered);
}

/* MARK: The library */
static int checks, failures;
#define CHECK(condition) \
  do { \
    checks++; \
    if (!(condition)) { \
      failures++; \
      printk("runtime test: not so: %s\n", #condition); \
    } \
  } while (0)

static void texts(void)
{
  char buffer[40], words[] = "one,two;;three", *rest = words;
  char *copy;
  unsigned char bytes[4];

  CHECK(strcmp("abc", "abd") < 0 && strncmp("abc", "abd", 2) == 0 && strcasecmp("ABC", "abc") == 0);
  CHECK(strncasecmp("ABCx", "abcy", 3) == 0 && strcmp("a", "\xff") < 0);
  CHECK(!strcmp(strchr("hello", 'l'), "llo") && !strcmp(strrchr("hello", 'l'), "lo") && !strchr("hello", 'x'));
  CHECK(*strchr("x", 0) == 0 && !strcmp(strstr("a haystack", "st"), "stack") && !strstr("short", "longer text"));
  CHECK(strspn("aabbc", "ab") == 4 && strcspn("aabbc", "c") == 4 && *strpbrk("xyz", "zy") == 'y');
  CHECK(!strcmp(strsep(&rest, ",;"), "one") && !strcmp(strsep(&rest, ",;"), "two") && !*strsep(&rest, ",;"));
  CHECK(!strcmp(strsep(&rest, ",;"), "three") && !strsep(&rest, ",;"));
  CHECK(strlcpy(buffer, "0123456789", 5) == 10 && !strcmp(buffer, "0123") && strlcat(buffer, "45", 40) == 6);
  CHECK(!strcmp(strncpy(buffer, "ab", 5), "ab") && !buffer[4] && strscpy(buffer, "abcdef", 4) == -E2BIG);
  CHECK(!strcmp(strcat(strcpy(buffer, " x "), "y  "), " x y  ") && !strcmp(strim(buffer), "x y"));
  CHECK(scnprintf(buffer, 4, "%d", 12345) == 3 && snprintf(buffer, 4, "%d", 12345) == 5 && !strcmp(buffer, "123"));
  copy = kasprintf(GFP_KERNEL, "%s-%04x|%-5d|%+d|%c", "name", 0xab, 7, 8, 'z');
  CHECK(!strcmp(copy, "name-00ab|7    |+8|z"));
  kfree(copy);
  CHECK(simple_strtoul("0x1fz", &rest, 0) == 0x1f && *rest == 'z' && simple_strtol("-017", NULL, 0) == -15);
  CHECK(memparse("3M!", &rest) == 3 << 20 && *rest == '!');
  CHECK(!hex2bin(bytes, "01aBfF00", 4) && bytes[1] == 0xab && bytes[2] == 0xff && hex2bin(bytes, "0g", 1) == -EINVAL);
  CHECK(isspace('\t') && !isspace('x') && isxdigit('f') && toupper('q') == 'Q' && ispunct('~') && iscntrl(127));
  CHECK(!memcmp("abc", "abd", 2) && memcmp("abd", "abc", 3) > 0 && memchr_inv("aab", 'a', 3) && !memchr_inv("aaa", 'a', 3));
  CHECK(sysfs_streq("on\n", "on") && !sysfs_streq("on", "off"));
}

static void bits(void)
{
  static unsigned long set[5], other[5];
  unsigned int bit, found = 0, index;

  for (bit = 3; bit < 300; bit += 7)
    __set_bit(bit, set);
  for_each_set_bit (bit, set, 300)
    found += bit % 7 == 3;
  CHECK(found == 43 && bitmap_weight(set, 300) == 43 && find_last_bit(set, 300) == 297 && find_last_bit(set, 297) == 290);
  CHECK(find_next_zero_bit(set, 300, 3) == 4 && find_first_zero_bit(set, 300) == 0 && find_next_bit(set, 300, 298) == 300);
  bitmap_set(other, 60, 100);
  CHECK(bitmap_weight(other, 300) == 100 && bitmap_intersects(set, other, 300) && !bitmap_subset(set, other, 300));
  CHECK(bitmap_find_next_zero_area(other, 300, 50, 20, 7) == 160 && bitmap_find_next_zero_area(other, 300, 0, 141, 0) > 300);
  CHECK(bitmap_and(set, set, other, 300) && bitmap_subset(set, other, 300) && bitmap_weight(set, 300) == 14);
  bitmap_clear(other, 61, 98);
  CHECK(bitmap_weight(other, 300) == 2);
  for (index = 0; index < 33; index++)
    CHECK(hweight64((1ull << index) - 1) == index);
  CHECK(gcd(84, 36) == 12 && lcm(4, 6) == 12 && int_sqrt(99) == 9 && int_sqrt(1ul << 40) == 1 << 20);
}

struct tree_entry {
  struct rb_node node;
  unsigned int key;
  bool is_in;
};

/* Black nodes on each path; -1: it is no red-black tree. */
static int black_height(struct rb_node *node, struct rb_node *parent)
{
  int left, right;
  bool red;

  if (!node)
    return 0;
  red = !(node->__rb_parent_color & 1);
  if ((struct rb_node *)(node->__rb_parent_color & ~3ul) != parent || (red && parent && !(parent->__rb_parent_color & 1)))
    return -1;
  left = black_height(node->rb_left, node);
  right = black_height(node->rb_right, node);
  return left < 0 || left != right ? -1 : left + !red;
}

static void trees(void)
{
  static struct tree_entry entries[200];
  struct rb_root root = RB_ROOT;
  struct rb_node *node;
  unsigned int dice = 1, round, count = 0, walked, last, in = 0;

  for (round = 0; round < ARRAY_SIZE(entries); round++)
    entries[round].key = round;
  for (round = 0; round < 4000; round++) {
    struct tree_entry *entry;

    dice = dice * 1664525 + 1013904223;
    entry = &entries[(dice >> 16) % ARRAY_SIZE(entries)];
    if (entry->is_in) {
      rb_erase(&entry->node, &root);
      in--;
    } else {
      struct rb_node **link = &root.rb_node, *parent = NULL;

      while (*link) {
        parent = *link;
        link = entry->key < rb_entry(parent, struct tree_entry, node)->key ? &parent->rb_left : &parent->rb_right;
      }
      rb_link_node(&entry->node, parent, link);
      rb_insert_color(&entry->node, &root);
      in++;
    }
    entry->is_in = !entry->is_in;
    walked = last = 0;
    for (node = rb_first(&root); node; node = rb_next(node)) {
      count += walked && rb_entry(node, struct tree_entry, node)->key <= last;
      last = rb_entry(node, struct tree_entry, node)->key;
      walked++;
    }
    count += walked != in || black_height(root.rb_node, NULL) < 0;
  }
  CHECK(count == 0);
  walked = 0;
  for (node = rb_last(&root); node; node = rb_prev(node))
    walked++;
  CHECK(walked == in);
  walked = 0;
  for (node = rb_first_postorder(&root); node; node = rb_next_postorder(node))
    walked++;
  CHECK(walked == in);
}

struct list_entry {
  struct list_head entry;
  int key, order;
};
static int by_number(const void *one, const void *other) { return *(const int *)one - *(const int *)other; }
static int by_key(void *context, const struct list_head *one, const struct list_head *other)
{
  return list_entry(one, struct list_entry, entry)->key - list_entry(other, struct list_entry, entry)->key;
}

static void orders(void)
{
  static int numbers[101];
  static struct list_entry entries[101];
  LIST_HEAD(list);
  struct list_entry *entry, *previous = NULL;
  int index, wrong = 0, count = 0, key = 3 * 7;

  for (index = 0; index < 101; index++) {
    numbers[index] = index * 37 % 101 * 3;
    entries[index].key = index * 37 % 10;
    entries[index].order = index;
    list_add_tail(&entries[index].entry, &list);
  }
  sort(numbers, 101, sizeof(int), by_number, NULL);
  for (index = 0; index < 101; index++)
    wrong += numbers[index] != index * 3;
  CHECK(wrong == 0 && bsearch(&key, numbers, 101, sizeof(int), by_number) == numbers + 7);
  key++;
  CHECK(!bsearch(&key, numbers, 101, sizeof(int), by_number));
  list_sort(NULL, &list, by_key);
  list_for_each_entry (entry, &list, entry) {
    if (previous && (previous->key > entry->key || (previous->key == entry->key && previous->order > entry->order)))
      wrong++;
    previous = entry;
    count++;
  }
  CHECK(wrong == 0 && count == 101);
}

static void initialise_object(void *object) { *(int *)object = 99; }
static int freed;
struct freed_later {
  struct rcu_head head;
};
static void free_later(struct rcu_head *head)
{
  freed++;
  kfree(head);
}

static void memories(void)
{
  struct kmem_cache *cache = kmem_cache_create("test", 24, 64, 0, initialise_object);
  int *object = kmem_cache_alloc(cache, GFP_KERNEL);
  char *block = kmalloc(10, GFP_KERNEL);
  void *large = kvmalloc(20000, GFP_KERNEL | __GFP_ZERO);
  unsigned long page = get_zeroed_page(GFP_KERNEL);
  struct freed_later *later = kmalloc(sizeof(*later), GFP_KERNEL);
  rwlock_t lock = __RW_LOCK_UNLOCKED(lock);

  CHECK(*object == 99 && (unsigned long)object % 64 == 0);
  kmem_cache_free(cache, object);
  kmem_cache_destroy(cache);
  strcpy(block, "kept");
  CHECK(ksize(block) >= 10);
  block = krealloc(block, 5000, GFP_KERNEL);
  CHECK(!strcmp(block, "kept") && ksize(block) >= 5000);
  kfree_sensitive(block);
  CHECK(!memchr_inv(large, 0, 20000) && page % PAGE_SIZE == 0 && !memchr_inv((void *)page, 0, PAGE_SIZE));
  kvfree(large);
  free_page(page);
  call_rcu(&later->head, free_later);
  CHECK(freed == 0);
  rcu_barrier();
  CHECK(freed == 1);
  read_lock(&lock);
  read_lock_bh(&lock);
  read_unlock_bh(&lock);
  read_unlock(&lock);
  write_lock(&lock);
  write_unlock(&lock);
}

static int told[3], told_count;
static int first_told(struct notifier_block *block, unsigned long event, void *data)
{
  told[told_count++] = 1;
  return event == 2 ? NOTIFY_STOP : NOTIFY_OK;
}
static int second_told(struct notifier_block *block, unsigned long event, void *data)
{
  told[told_count++] = 2;
  return NOTIFY_OK;
}

static void packets(void)
{
  struct sk_buff *skb = alloc_skb(200, GFP_KERNEL);
  struct page *page = alloc_page(GFP_KERNEL);
  char copy[40];
  int index;

  skb_reserve(skb, 50);
  for (index = 0; index < 30; index++)
    *(char *)skb_put(skb, 1) = index;
  *(char *)skb_push(skb, 1) = 77;
  CHECK(skb->len == 31 && skb->data[0] == 77 && skb->data[30] == 29);
  skb_pull(skb, 6);
  CHECK(skb->len == 25 && skb->data[0] == 5);
  skb_trim(skb, 10);
  CHECK(skb->len == 10);
  for (index = 0; index < 100; index++)
    ((char *)page_address(page))[index] = 100 + index;
  skb_add_rx_frag(skb, 0, page, 20, 30, PAGE_SIZE);
  CHECK(skb->len == 40 && !skb_copy_bits(skb, 5, copy, 35) && copy[0] == 10 && copy[4] == 14 && copy[5] == 120 && (u8)copy[34] == 149);
  CHECK(!skb_copy_bits(skb, 15, copy, 3) && copy[0] == 125 && skb_copy_bits(skb, 30, copy, 11) == -EFAULT);
  kfree_skb(skb);
}

static void chains(void)
{
  static BLOCKING_NOTIFIER_HEAD(chain);
  static struct notifier_block one = {.notifier_call = second_told}, other = {.notifier_call = first_told, .priority = 9};
  static DEFINE_RATELIMIT_STATE(limit, HZ / 2, 3);
  int index, passed = 0;

  blocking_notifier_chain_register(&chain, &one);
  CHECK(!blocking_notifier_chain_register(&chain, &other) && blocking_notifier_chain_register(&chain, &one) == -EEXIST);
  blocking_notifier_call_chain(&chain, 1, NULL);
  CHECK(told_count == 2 && told[0] == 1 && told[1] == 2);
  told_count = 0;
  blocking_notifier_call_chain(&chain, 2, NULL);
  CHECK(told_count == 1 && !blocking_notifier_chain_unregister(&chain, &other));
  for (index = 0; index < 10; index++)
    passed += __ratelimit(&limit);
  CHECK(passed == 3);
  msleep(520);
  CHECK(__ratelimit(&limit) == 1);
}

static void library(void)
{
  packets();
  chains();
  texts();
  bits();
  trees();
  orders();
  memories();
  printk("runtime test: library: %d checks, %d failed\n", checks, failures);
}

static int everything(void *unused)
{
  tasks();
  timers();
  queues();
  library();
  printk("runtime test: all done\n");
  return 0;
}

/* What ends the container: for tests of what it says then. */
static char *die = "";
module_param(die, charp, 0444);

static noinline int endless(int depth)
{
  volatile char room[512];

  room[depth % 512] = depth;
  return depth < 1000000 ? endless(depth + 1) + room[0] : 0;
}

static int do_die(void *unused)
{
  msleep(1);
  if (!strcmp(die, "bug"))
    BUG_ON(die[0] == 'b');
  if (!strcmp(die, "store"))
    *(volatile int *)0x40 = 1;
  if (!strcmp(die, "stack"))
    printk("runtime test: %d\n", endless(0));
  if (!strcmp(die, "deadlock")) {
    mutex_lock(&mutex);
    mutex_lock(&mutex);
  }
  printk("runtime test: not dead\n");
  return 0;
}

static int __init start(void)
{
  printk("runtime test: small %d negative %d large %lu on %d off %d text %s name %s\n", small, negative, large, on, off, text, name);
  printk("runtime test: list of %d: %d %d %d\n", list_count, list[0], list[1], list[2]);
  if (WARN_ON(list_count >= 0))
    printk("runtime test: behind the warning\n");
  if (*die) {
    kthread_run(do_die, NULL, "dies");
    return 0;
  }
  exceptions();
  /* On the thread that initialises modules, which is the program's, and on a kthread. */
  tasks();
  asked = answered = holders = most_inside = 0;
  reinit_completion(&first_done);
  kthread_run(everything, NULL, "everything");
  begin = jiffies;
  schedule_delayed_work(&work, HZ / 5);
  return 0;
}
module_init(start);

/* What Linux's build would add. */
struct module __this_module __section(".gnu.linkonce.this_module") = {.name = KBUILD_MODNAME, .init = init_module};
MODULE_INFO(name, KBUILD_MODNAME);
MODULE_INFO(vermagic, VERMAGIC_STRING);
MODULE_INFO(depends, "");
MODULE_LICENSE("GPL");
