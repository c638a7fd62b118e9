// SPDX-License-Identifier: GPL-2.0
/* Texts: what C's library has of them, formats into new memory, and numbers read from text. library.c has formats themselves. */
#include "internal.h"
#include <linux/ctype.h>
#include <linux/string.h>
#include <linux/string_helpers.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>

#undef memcmp
#undef memchr
#undef strcat
#undef strchr
#undef strcpy
#undef strncat
#undef strncmp
#undef strncpy
#undef strlcpy
#undef strlcat
#undef strcasecmp
#undef strncasecmp
#undef strrchr
#undef strstr
#undef strnstr
#undef strscpy

/* MARK: Kinds of characters, of ISO 8859-1 as in Linux */
#define KINDS(from, to, kind) [from ... to] = (kind)
const unsigned char _ctype[256] = {
  KINDS(0, 8, _C),
  KINDS(9, 13, _C | _S),
  KINDS(14, 31, _C),
  [' '] = _S | _SP,
  KINDS('!', '/', _P),
  KINDS('0', '9', _D),
  KINDS(':', '@', _P),
  KINDS('A', 'F', _U | _X),
  KINDS('G', 'Z', _U),
  KINDS('[', '`', _P),
  KINDS('a', 'f', _L | _X),
  KINDS('g', 'z', _L),
  KINDS('{', '~', _P),
  [127] = _C,
  [160] = _S | _SP,
  KINDS(161, 191, _P),
  KINDS(192, 214, _U),
  [215] = _P,
  KINDS(216, 222, _U),
  KINDS(223, 246, _L),
  [247] = _P,
  KINDS(248, 255, _L),
};
EXPORT_SYMBOL(_ctype);

/* MARK: Comparing and finding */
int memcmp(const void *left, const void *right, size_t size)
{
  const u8 *one = left, *other = right;

  for (; size; one++, other++, size--)
    if (*one != READ_ONCE(*other))
      return *one - *other;
  return 0;
}
EXPORT_SYMBOL(memcmp);
int bcmp(const void *left, const void *right, size_t size) { return memcmp(left, right, size); }
EXPORT_SYMBOL(bcmp);

int strncmp(const char *left, const char *right, size_t limit)
{
  for (; limit && *left && *left == *right; left++, right++, limit--)
    ;
  return limit ? *(const u8 *)left - *(const u8 *)right : 0;
}
EXPORT_SYMBOL(strncmp);
int strcasecmp(const char *left, const char *right)
{
  for (; *left && tolower(*left) == tolower(*right); left++, right++)
    ;
  return tolower(*left) - tolower(*right);
}
EXPORT_SYMBOL(strcasecmp);
int strncasecmp(const char *left, const char *right, size_t limit)
{
  for (; limit && *left && tolower(*left) == tolower(*right); left++, right++, limit--)
    ;
  return limit ? tolower(*left) - tolower(*right) : 0;
}
EXPORT_SYMBOL(strncasecmp);

void *memchr(const void *memory, int byte, size_t size)
{
  const u8 *next = memory;

  for (; size; next++, size--)
    if (READ_ONCE(*next) == (u8)byte)
      return (void *)next;
  return NULL;
}
EXPORT_SYMBOL(memchr);
void *memchr_inv(const void *memory, int byte, size_t size)
{
  const u8 *next = memory;

  for (; size; next++, size--)
    if (*next != (u8)byte)
      return (void *)next;
  return NULL;
}
EXPORT_SYMBOL(memchr_inv);
void *memscan(void *memory, int byte, size_t size)
{
  u8 *next = memory;

  for (; size && *next != (u8)byte; size--)
    next++;
  return next;
}
EXPORT_SYMBOL(memscan);

char *strchrnul(const char *text, int byte)
{
  for (; *text && *text != (char)byte; text++)
    ;
  return (char *)text;
}
EXPORT_SYMBOL(strchrnul);
char *strchr(const char *text, int byte)
{
  text = strchrnul(text, byte);
  return *text == (char)byte ? (char *)text : NULL;
}
EXPORT_SYMBOL(strchr);
char *strnchr(const char *text, size_t limit, int byte)
{
  for (; limit--; text++) {
    if (*text == (char)byte)
      return (char *)text;
    if (!*text)
      break;
  }
  return NULL;
}
EXPORT_SYMBOL(strnchr);
char *strrchr(const char *text, int byte)
{
  const char *found = NULL;

  do
    if (*text == (char)byte)
      found = text;
  while (*text++);
  return (char *)found;
}
EXPORT_SYMBOL(strrchr);

size_t strspn(const char *text, const char *accepted)
{
  const char *next = text;

  while (*next && strchr(accepted, *next))
    next++;
  return next - text;
}
EXPORT_SYMBOL(strspn);
size_t strcspn(const char *text, const char *rejected)
{
  const char *next = text;

  while (*next && !strchr(rejected, *next))
    next++;
  return next - text;
}
EXPORT_SYMBOL(strcspn);
char *strpbrk(const char *text, const char *wanted)
{
  text += strcspn(text, wanted);
  return *text ? (char *)text : NULL;
}
EXPORT_SYMBOL(strpbrk);
char *strsep(char **rest, const char *separators)
{
  char *start = *rest, *end;

  if (!start)
    return NULL;
  end = strpbrk(start, separators);
  if (end)
    *end++ = 0;
  *rest = end;
  return start;
}
EXPORT_SYMBOL(strsep);
char *strnstr(const char *text, const char *part, size_t limit)
{
  size_t size = strlen(part);

  for (; limit >= size; text++, limit--) {
    if (!memcmp(text, part, size))
      return (char *)text;
    if (!*text)
      break;
  }
  return NULL;
}
EXPORT_SYMBOL(strnstr);
char *strstr(const char *text, const char *part) { return strnstr(text, part, strlen(text)); }
EXPORT_SYMBOL(strstr);

bool sysfs_streq(const char *left, const char *right)
{
  for (; *left && *left == *right; left++, right++)
    ;
  return *left == *right || (!*left && *right == '\n' && !right[1]) || (!*right && *left == '\n' && !left[1]);
}
EXPORT_SYMBOL(sysfs_streq);
int match_string(const char *const *array, size_t count, const char *text)
{
  size_t index;

  for (index = 0; index < count && array[index]; index++)
    if (!strcmp(array[index], text))
      return index;
  return -EINVAL;
}
EXPORT_SYMBOL(match_string);

/* MARK: Copying */
char *strcpy(char *target, const char *source)
{
  memcpy(target, source, strlen(source) + 1);
  return target;
}
EXPORT_SYMBOL(strcpy);
char *stpcpy(char *target, const char *source)
{
  size_t length = strlen(source);

  memcpy(target, source, length + 1);
  return target + length;
}
EXPORT_SYMBOL(stpcpy);
char *strncpy(char *target, const char *source, size_t size)
{
  size_t length = strnlen(source, size);

  memcpy(target, source, length);
  memset(target + length, 0, size - length);
  return target;
}
EXPORT_SYMBOL(strncpy);
size_t strlcpy(char *target, const char *source, size_t size)
{
  size_t length = strlen(source), taken;

  if (size) {
    taken = min(length, size - 1);
    memcpy(target, source, taken);
    target[taken] = 0;
  }
  return length;
}
EXPORT_SYMBOL(strlcpy);
ssize_t strscpy_pad(char *target, const char *source, size_t size)
{
  ssize_t length = strscpy(target, source, size);

  if (length >= 0 && (size_t)length + 1 < size)
    memset(target + length + 1, 0, size - length - 1);
  return length;
}
EXPORT_SYMBOL(strscpy_pad);
char *strcat(char *target, const char *source)
{
  strcpy(target + strlen(target), source);
  return target;
}
EXPORT_SYMBOL(strcat);
char *strncat(char *target, const char *source, size_t limit)
{
  size_t start = strlen(target), length = strnlen(source, limit);

  memcpy(target + start, source, length);
  target[start + length] = 0;
  return target;
}
EXPORT_SYMBOL(strncat);
size_t strlcat(char *target, const char *source, size_t size)
{
  size_t start = strnlen(target, size);

  return start == size ? start + strlen(source) : start + strlcpy(target + start, source, size - start);
}
EXPORT_SYMBOL(strlcat);

char *skip_spaces(const char *text)
{
  while (isspace(*text))
    text++;
  return (char *)text;
}
EXPORT_SYMBOL(skip_spaces);
char *strim(char *text)
{
  size_t length;

  text = skip_spaces(text);
  for (length = strlen(text); length && isspace(text[length - 1]); length--)
    ;
  text[length] = 0;
  return text;
}
EXPORT_SYMBOL(strim);
char *strreplace(char *text, char old, char new)
{
  for (; *text; text++)
    if (*text == old)
      *text = new;
  return text;
}
EXPORT_SYMBOL(strreplace);

/* MARK: Copies in new memory */
char *kmemdup_nul(const char *text, size_t length, gfp_t flags)
{
  char *copy = text ? kmalloc(length + 1, flags) : NULL;

  if (copy) {
    memcpy(copy, text, length);
    copy[length] = 0;
  }
  return copy;
}
EXPORT_SYMBOL(kmemdup_nul);
char *kstrdup(const char *text, gfp_t flags) { return text ? kmemdup_nul(text, strlen(text), flags) : NULL; }
EXPORT_SYMBOL(kstrdup);
char *kstrndup(const char *text, size_t limit, gfp_t flags)
{
  return text ? kmemdup_nul(text, strnlen(text, limit), flags) : NULL;
}
EXPORT_SYMBOL(kstrndup);
/* There is no part of the kernel whose texts stay for ever: always a copy. */
const char *kstrdup_const(const char *text, gfp_t flags) { return kstrdup(text, flags); }
EXPORT_SYMBOL(kstrdup_const);
void kfree_const(const void *text) { kfree(text); }
EXPORT_SYMBOL(kfree_const);

/* MARK: Formats. `print_text` says how long the text would be, of which `size` - 1 bytes are there. */
int vsnprintf(char *buffer, size_t size, const char *format, va_list arguments)
{
  return print_text(buffer, size, format, arguments);
}
EXPORT_SYMBOL(vsnprintf);
int vscnprintf(char *buffer, size_t size, const char *format, va_list arguments)
{
  int length = print_text(buffer, size, format, arguments);

  return size ? min_t(int, length, size - 1) : 0;
}
EXPORT_SYMBOL(vscnprintf);
int vsprintf(char *buffer, const char *format, va_list arguments)
{
  return print_text(buffer, INT_MAX, format, arguments);
}
EXPORT_SYMBOL(vsprintf);
int scnprintf(char *buffer, size_t size, const char *format, ...)
{
  va_list arguments;
  int length;

  va_start(arguments, format);
  length = vscnprintf(buffer, size, format, arguments);
  va_end(arguments);
  return length;
}
EXPORT_SYMBOL(scnprintf);
int sysfs_emit_at(char *buffer, int at, const char *format, ...)
{
  va_list arguments;
  int length;

  if (at < 0 || at >= PAGE_SIZE)
    return 0;
  va_start(arguments, format);
  length = vscnprintf(buffer + at, PAGE_SIZE - at, format, arguments);
  va_end(arguments);
  return length;
}
EXPORT_SYMBOL(sysfs_emit_at);
char *kvasprintf(gfp_t flags, const char *format, va_list arguments)
{
  va_list again;
  char *text;
  int length;

  va_copy(again, arguments);
  length = print_text(NULL, 0, format, again);
  va_end(again);
  text = kmalloc(length + 1, flags);
  if (text)
    print_text(text, length + 1, format, arguments);
  return text;
}
EXPORT_SYMBOL(kvasprintf);
char *kasprintf(gfp_t flags, const char *format, ...)
{
  va_list arguments;
  char *text;

  va_start(arguments, format);
  text = kvasprintf(flags, format, arguments);
  va_end(arguments);
  return text;
}
EXPORT_SYMBOL(kasprintf);

/* MARK: Numbers as far as there are digits */
unsigned long long simple_strtoull(const char *text, char **end, unsigned int base)
{
  unsigned long long value = 0;

  if (!base) {
    base = 10;
    if (*text == '0')
      base = (text[1] | 32) == 'x' && isxdigit(text[2]) ? 16 : 8;
  }
  if (base == 16 && *text == '0' && (text[1] | 32) == 'x')
    text += 2;
  for (; isxdigit(*text); text++) {
    unsigned int digit = isdigit(*text) ? *text - '0' : (*text | 32) - 'a' + 10;

    if (digit >= base)
      break;
    value = value * base + digit;
  }
  if (end)
    *end = (char *)text;
  return value;
}
EXPORT_SYMBOL(simple_strtoull);
unsigned long simple_strtoul(const char *text, char **end, unsigned int base)
{
  return simple_strtoull(text, end, base);
}
EXPORT_SYMBOL(simple_strtoul);
long long simple_strtoll(const char *text, char **end, unsigned int base)
{
  return *text == '-' ? -simple_strtoull(text + 1, end, base) : simple_strtoull(text, end, base);
}
EXPORT_SYMBOL(simple_strtoll);
long simple_strtol(const char *text, char **end, unsigned int base) { return simple_strtoll(text, end, base); }
EXPORT_SYMBOL(simple_strtol);

/* A number with K, M, G, T, P or E behind it. */
unsigned long long memparse(const char *text, char **rest)
{
  static const char units[] = "KMGTPE";
  char *end;
  unsigned long long value = simple_strtoull(text, &end, 0);
  const char *unit = *end ? strchr(units, toupper(*end)) : NULL;

  if (unit) {
    value <<= 10 * (unit - units + 1);
    end++;
  }
  if (rest)
    *rest = end;
  return value;
}
EXPORT_SYMBOL(memparse);

/* MARK: Bytes as hexadecimal digits */
const char hex_asc[] = "0123456789abcdef";
EXPORT_SYMBOL(hex_asc);
const char hex_asc_upper[] = "0123456789ABCDEF";
EXPORT_SYMBOL(hex_asc_upper);
int hex_to_bin(unsigned char digit)
{
  return isdigit(digit) ? digit - '0' : isxdigit(digit) ? (digit | 32) - 'a' + 10 : -1;
}
EXPORT_SYMBOL(hex_to_bin);
int hex2bin(u8 *target, const char *text, size_t count)
{
  for (; count; count--, text += 2) {
    int high = hex_to_bin(text[0]), low = high < 0 ? -1 : hex_to_bin(text[1]);

    if (low < 0)
      return -EINVAL;
    *target++ = high << 4 | low;
  }
  return 0;
}
EXPORT_SYMBOL(hex2bin);
char *bin2hex(char *target, const void *source, size_t count)
{
  const u8 *bytes = source;

  for (; count; count--)
    target = hex_byte_pack(target, *bytes++);
  return target;
}
EXPORT_SYMBOL(bin2hex);

/* MARK: Memory of programs. No task here has any, so it always lies beyond what a driver may reach. */
unsigned long _copy_from_user(void *target, const void __user *source, unsigned long size)
{
  memset(target, 0, size);
  return size;
}
EXPORT_SYMBOL(_copy_from_user);
unsigned long _copy_to_user(void __user *target, const void *source, unsigned long size) { return size; }
EXPORT_SYMBOL(_copy_to_user);
void __check_object_size(const void *object, unsigned long size, bool to_user) {}
EXPORT_SYMBOL(__check_object_size);
