// SPDX-License-Identifier: GPL-2.0
/* Text, messages, lists, numbers, and what compiled code calls by itself. */
#include "internal.h"
#include <linux/dynamic_debug.h>
#include <linux/idr.h>
#include <linux/scatterlist.h>
#include <linux/string_helpers.h>
#include <linux/sysfs.h>

/* MARK: Bytes. The compiler may turn these loops into calls of themselves, hence the string instructions. */
#undef memcpy
#undef memmove
#undef memset
#undef strlen
#undef strnlen
#undef strcmp
void *memcpy(void *to, const void *from, size_t size)
{
  void *result = to;

  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return result;
}
EXPORT_SYMBOL(memcpy);

void *memset(void *to, int value, size_t size)
{
  void *result = to;

  asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
  return result;
}
EXPORT_SYMBOL(memset);

void *memmove(void *to, const void *from, size_t size)
{
  char *target = to;
  const char *source = from;

  if (target <= source || target >= source + size)
    return memcpy(to, from, size);
  while (size--)
    WRITE_ONCE(target[size], source[size]);
  return to;
}
EXPORT_SYMBOL(memmove);

size_t strlen(const char *text)
{
  const char *end = text;

  while (READ_ONCE(*end))
    end++;
  return end - text;
}
EXPORT_SYMBOL(strlen);

size_t strnlen(const char *text, size_t limit)
{
  size_t length;

  for (length = 0; length < limit && READ_ONCE(text[length]); length++)
    ;
  return length;
}
EXPORT_SYMBOL(strnlen);

int strcmp(const char *left, const char *right)
{
  for (; *left && *left == *right; left++, right++)
    ;
  return *(const u8 *)left - *(const u8 *)right;
}
EXPORT_SYMBOL(strcmp);

/* MARK: Text */
struct output {
  char *buffer;
  unsigned long size, length;
};

static void put(struct output *out, char byte)
{
  if (out->length + 1 < out->size)
    out->buffer[out->length] = byte;
  out->length++;
}

static void put_padded(
  struct output *out, const char *text, int length, int width, bool left, bool zeroes, const char *sign)
{
  int signs = strlen(sign), fill = width - length - signs;

  if (!left && !zeroes)
    for (; fill > 0; fill--)
      put(out, ' ');
  while (*sign)
    put(out, *sign++);
  if (!left)
    for (; fill > 0; fill--)
      put(out, '0');
  while (length--)
    put(out, *text++);
  for (; fill > 0; fill--)
    put(out, ' ');
}

static int digits(char *end, unsigned long value, unsigned int base, bool upper)
{
  char *next = end;

  do
    *--next = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[value % base];
  while (value /= base);
  return end - next;
}

static int format_into(struct output *out, const char *format, va_list arguments)
{
  for (; *format; format++) {
    bool left = false, zeroes = false, alternate = false, plus = false;
    int width = 0, precision = -1, length, longs = 0;
    char number[24];
    const char *sign = "", *text;
    unsigned long value;
    unsigned int base = 10;

    if (*format != '%') {
      put(out, *format);
      continue;
    }
    for (format++;; format++) {
      if (*format == '-')
        left = true;
      else if (*format == '0')
        zeroes = true;
      else if (*format == '#')
        alternate = true;
      else if (*format == '+')
        plus = true;
      else
        break;
    }
    if (*format == '*') {
      width = va_arg(arguments, int);
      format++;
    }
    for (; *format >= '0' && *format <= '9'; format++)
      width = width * 10 + *format - '0';
    if (*format == '.') {
      format++;
      precision = 0;
      if (*format == '*') {
        precision = va_arg(arguments, int);
        format++;
      }
      for (; *format >= '0' && *format <= '9'; format++)
        precision = precision * 10 + *format - '0';
    }
    for (;; format++) {
      if (*format == 'l' || *format == 'z' || *format == 't' || *format == 'L')
        longs += 1;
      else if (*format != 'h')
        break;
    }
    switch (*format) {
    case 0: return out->length;
    case 'c':
      number[0] = va_arg(arguments, int);
      put_padded(out, number, 1, width, left, false, "");
      continue;
    case 's':
      text = va_arg(arguments, const char *);
      if (!text)
        text = "(null)";
      for (length = 0; (precision < 0 || length < precision) && text[length];)
        length++;
      put_padded(out, text, length, width, left, false, "");
      continue;
    case 'p':
      value = va_arg(arguments, unsigned long);
      if (format[1] == 'V') {
        struct va_format *nested = (void *)value;
        va_list copy;

        format++;
        va_copy(copy, *nested->va);
        format_into(out, nested->fmt, copy);
        va_end(copy);
        continue;
      }
      while ((format[1] >= 'a' && format[1] <= 'z') || (format[1] >= 'A' && format[1] <= 'Z'))
        format++;
      base = 16;
      sign = "0x";
      break;
    case 'd':
    case 'i': {
      long number_signed = longs ? va_arg(arguments, long) : va_arg(arguments, int);

      sign = number_signed < 0 ? "-" : plus ? "+" : "";
      value = number_signed < 0 ? -number_signed : number_signed;
      break;
    }
    case 'x':
    case 'X':
      base = 16;
      sign = alternate ? "0x" : "";
      fallthrough;
    case 'o':
    case 'u':
      if (*format == 'o')
        base = 8;
      value = longs ? va_arg(arguments, unsigned long) : va_arg(arguments, unsigned int);
      break;
    default: put(out, *format); continue;
    }
    length = digits(number + sizeof(number), value, base, *format == 'X');
    put_padded(out, number + sizeof(number) - length, length, width, left, zeroes, sign);
  }
  return out->length;
}

int print_text(char *buffer, unsigned long size, const char *format, va_list arguments)
{
  struct output out = {buffer, size, 0};

  format_into(&out, format, arguments);
  if (size)
    buffer[min(out.length, size - 1)] = 0;
  return out.length;
}

int sprintf(char *buffer, const char *format, ...)
{
  va_list arguments;
  int length;

  va_start(arguments, format);
  length = print_text(buffer, INT_MAX, format, arguments);
  va_end(arguments);
  return length;
}
EXPORT_SYMBOL(sprintf);

int snprintf(char *buffer, size_t size, const char *format, ...)
{
  va_list arguments;
  int length;

  va_start(arguments, format);
  length = print_text(buffer, size, format, arguments);
  va_end(arguments);
  return length;
}
EXPORT_SYMBOL(snprintf);

int sysfs_emit(char *buffer, const char *format, ...)
{
  va_list arguments;
  int length;

  va_start(arguments, format);
  length = print_text(buffer, PAGE_SIZE, format, arguments);
  va_end(arguments);
  return min_t(int, length, PAGE_SIZE - 1);
}
EXPORT_SYMBOL(sysfs_emit);

static bool same(const char *left, const char *right)
{
  for (; *left && *left == *right; left++, right++)
    ;
  /* sysfs_streq: a line's end in what was written does not count. */
  return *left == *right || (!*left && *right == '\n' && !right[1]);
}

int __sysfs_match_string(const char *const *array, size_t count, const char *text)
{
  size_t index;

  for (index = 0; index < count && array[index]; index++)
    if (same(array[index], text))
      return index;
  return -EINVAL;
}
EXPORT_SYMBOL(__sysfs_match_string);

/* Three significant digits and a unit, lib/string_helpers.c. */
void string_get_size(u64 blocks, u64 block_size, const enum string_size_units units, char *buffer, int length)
{
  static const char *const names[2][7] = {
    {"B", "kB", "MB", "GB", "TB", "PB", "EB"}, {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}};
  unsigned int divisor = units == STRING_UNITS_10 ? 1000 : 1024, unit = 0, rest = 0;
  u64 value = blocks * block_size;

  while (value >= divisor && unit < 6) {
    rest = value % divisor;
    value /= divisor;
    unit++;
  }
  rest = rest * 100 / divisor;
  if (!unit || value >= 100)
    snprintf(buffer, length, "%llu %s", value, names[units == STRING_UNITS_2][unit]);
  else if (value >= 10)
    snprintf(buffer, length, "%llu.%u %s", value, rest / 10, names[units == STRING_UNITS_2][unit]);
  else
    snprintf(buffer, length, "%llu.%02u %s", value, rest, names[units == STRING_UNITS_2][unit]);
}
EXPORT_SYMBOL(string_get_size);

/* MARK: Messages */
static void say(const char *who, const char *format, va_list arguments)
{
  char line[256];
  struct output out = {line, sizeof(line), 0};

  for (format = printk_skip_level(format); who && *who; who++)
    put(&out, *who);
  format_into(&out, format, arguments);
  container_host->print(line, min_t(unsigned long, out.length, sizeof(line) - 1));
}

int _printk(const char *format, ...)
{
  va_list arguments;

  va_start(arguments, format);
  say("", format, arguments);
  va_end(arguments);
  return 0;
}
EXPORT_SYMBOL(_printk);

void __warn_printk(const char *format, ...)
{
  va_list arguments;

  va_start(arguments, format);
  say("warning: ", format, arguments);
  va_end(arguments);
}
EXPORT_SYMBOL(__warn_printk);

void panic(const char *format, ...)
{
  va_list arguments;

  struct va_format text = {format, &arguments};

  va_start(arguments, format);
  _printk("panic: %pV\n", &text);
  va_end(arguments);
  container_host->fail();
  for (;;)
    ;
}
EXPORT_SYMBOL(panic);

void fortify_panic(const char *name) { panic("%s was asked to go beyond an object", name); }
EXPORT_SYMBOL(fortify_panic);

void refcount_warn_saturate(refcount_t *count, enum refcount_saturation_type type)
{
  _printk("warning: a reference count at %p is wrong\n", count);
}
EXPORT_SYMBOL(refcount_warn_saturate);

void __stack_chk_fail(void) { panic("a function of a module wrote beyond its stack frame"); }
EXPORT_SYMBOL(__stack_chk_fail);

void __dynamic_pr_debug(struct _ddebug *descriptor, const char *format, ...) {}
EXPORT_SYMBOL(__dynamic_pr_debug);

#define DEVICE_MESSAGE(name)                                          \
  void name(const struct device *device, const char *format, ...)     \
  {                                                                   \
    char who[64];                                                     \
    va_list arguments;                                                \
                                                                      \
    snprintf(who, sizeof(who), "%s %s: ", dev_driver_string(device), dev_name(device)); \
    va_start(arguments, format);                                      \
    say(who, format, arguments);                                      \
    va_end(arguments);                                                \
  }                                                                   \
  EXPORT_SYMBOL(name)

#undef _dev_err
#undef _dev_warn
DEVICE_MESSAGE(_dev_err);
DEVICE_MESSAGE(_dev_warn);
DEVICE_MESSAGE(_dev_notice);
DEVICE_MESSAGE(_dev_info);

/* MARK: Checked lists (CONFIG_DEBUG_LIST) */
bool __list_add_valid(struct list_head *new, struct list_head *previous, struct list_head *next)
{
  if (next->prev == previous && previous->next == next && new != previous && new != next)
    return true;
  panic("a list is damaged where %p is added", new);
  return false;
}
EXPORT_SYMBOL(__list_add_valid);

bool __list_del_entry_valid(struct list_head *entry)
{
  if (entry->prev != LIST_POISON2 && entry->next != LIST_POISON1 && entry->prev->next == entry &&
      entry->next->prev == entry)
    return true;
  panic("a list is damaged where %p is removed", entry);
  return false;
}
EXPORT_SYMBOL(__list_del_entry_valid);

/* MARK: Numbers: 64 an allocator, which is what drivers of devices use. */
struct numbers {
  struct ida *owner;
  u64 taken;
  struct numbers *next;
};
static struct numbers *all_numbers;

static struct numbers *numbers_of(struct ida *ida)
{
  struct numbers *entry;

  for (entry = all_numbers; entry; entry = entry->next)
    if (entry->owner == ida)
      return entry;
  entry = kzalloc(sizeof(*entry), GFP_KERNEL);
  if (entry) {
    entry->owner = ida;
    entry->next = all_numbers;
    all_numbers = entry;
  }
  return entry;
}

int ida_alloc_range(struct ida *ida, unsigned int first, unsigned int last, gfp_t flags)
{
  struct numbers *entry = numbers_of(ida);
  unsigned int number;

  if (!entry)
    return -ENOMEM;
  for (number = first; number <= last && number < 64; number++) {
    if (entry->taken & BIT_ULL(number))
      continue;
    entry->taken |= BIT_ULL(number);
    return number;
  }
  return -ENOSPC;
}
EXPORT_SYMBOL(ida_alloc_range);

void ida_free(struct ida *ida, unsigned int number)
{
  struct numbers *entry = numbers_of(ida);

  if (entry && number < 64)
    entry->taken &= ~BIT_ULL(number);
}
EXPORT_SYMBOL(ida_free);

void ida_destroy(struct ida *ida)
{
  struct numbers *entry = numbers_of(ida);

  if (entry)
    entry->taken = 0;
}
EXPORT_SYMBOL(ida_destroy);

/* MARK: Scatter lists */
void sg_init_table(struct scatterlist *list, unsigned int count)
{
  memset(list, 0, count * sizeof(*list));
  sg_mark_end(list + count - 1);
}
EXPORT_SYMBOL(sg_init_table);

void sg_init_one(struct scatterlist *list, const void *data, unsigned int length)
{
  memset(list, 0, sizeof(*list));
  sg_mark_end(list);
  sg_set_buf(list, data, length);
}
EXPORT_SYMBOL(sg_init_one);

struct scatterlist *sg_next(struct scatterlist *list)
{
  if (sg_is_last(list))
    return NULL;
  list++;
  return sg_is_chain(list) ? sg_chain_ptr(list) : list;
}
EXPORT_SYMBOL(sg_next);

int sg_alloc_table_chained(struct sg_table *table, int count, struct scatterlist *first, unsigned int first_count)
{
  table->sgl = first && count <= first_count ? first : kmalloc_array(count, sizeof(*first), GFP_KERNEL);
  if (!table->sgl)
    return -ENOMEM;
  table->nents = table->orig_nents = count;
  memset(table->sgl, 0, count * sizeof(*first));
  sg_mark_end(table->sgl + count - 1);
  return 0;
}
EXPORT_SYMBOL(sg_alloc_table_chained);

void sg_free_table_chained(struct sg_table *table, unsigned int first_count)
{
  if (table->orig_nents > first_count)
    kfree(table->sgl);
  table->orig_nents = 0;
}
EXPORT_SYMBOL(sg_free_table_chained);

/* What stubs.txt names, called after all. */
long stub_called(const char *name, int *said)
{
  if (!*said)
    _printk("stub called: %s\n", name);
  *said = 1;
  return 0;
}

/* MARK: What the compiler and the build put into modules */
int __SCT__might_resched(void) { return 0; }
EXPORT_SYMBOL(__SCT__might_resched);

asm(".text\n"
    ".globl __fentry__, __x86_return_thunk\n"
    "__fentry__: ret\n"
    "__x86_return_thunk: ret\n");
extern void __fentry__(void);
EXPORT_SYMBOL(__fentry__);
extern void __x86_return_thunk(void);
EXPORT_SYMBOL(__x86_return_thunk);

#define THUNK(register)                                                                                       \
  asm(".globl __x86_indirect_thunk_" #register "\n__x86_indirect_thunk_" #register ": jmp *%" #register "\n"); \
  EXPORT_SYMBOL(__x86_indirect_thunk_##register)
THUNK(rax);
THUNK(rbx);
THUNK(rcx);
THUNK(rdx);
THUNK(rsi);
THUNK(rdi);
THUNK(rbp);
THUNK(r8);
THUNK(r9);
THUNK(r10);
THUNK(r11);
THUNK(r12);
THUNK(r13);
THUNK(r14);
THUNK(r15);
