// SPDX-License-Identifier: GPL-2.0
/* Numbers in text, and the parameters of modules, which are set before a module's initialisation runs. */
#include "internal.h"
#include <linux/moduleparam.h>

/* MARK: Numbers */
/* Digits of `base` (0: as in C) up to the end or a last newline. */
static int read_digits(const char *text, unsigned int base, unsigned long long *value)
{
  unsigned long long number = 0;
  bool any = false;

  if (base == 0) {
    base = 10;
    if (*text == '0')
      base = text[1] == 'x' || text[1] == 'X' ? 16 : 8;
  }
  if (base == 16 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
    text += 2;
  for (; *text; text++) {
    unsigned int digit;

    if (*text >= '0' && *text <= '9')
      digit = *text - '0';
    else if ((*text | 32) >= 'a' && (*text | 32) <= 'f')
      digit = (*text | 32) - 'a' + 10;
    else
      break;
    if (digit >= base)
      return -EINVAL;
    if (number > (ULLONG_MAX - digit) / base)
      return -ERANGE;
    number = number * base + digit;
    any = true;
  }
  if (*text == '\n')
    text++;
  if (*text || !any)
    return -EINVAL;
  *value = number;
  return 0;
}

int kstrtoull(const char *text, unsigned int base, unsigned long long *result)
{
  return read_digits(text + (*text == '+'), base, result);
}
EXPORT_SYMBOL(kstrtoull);

int kstrtoll(const char *text, unsigned int base, long long *result)
{
  unsigned long long value;
  bool negative = *text == '-';
  int error = negative ? read_digits(text + 1, base, &value) : kstrtoull(text, base, &value);

  if (error)
    return error;
  if (value > (unsigned long long)LLONG_MAX + negative)
    return -ERANGE;
  *result = negative ? -(long long)value : (long long)value;
  return 0;
}
EXPORT_SYMBOL(kstrtoll);

#define NARROW(name, type, wide, wide_type) \
  int name(const char *text, unsigned int base, type *result) \
  { \
    wide_type value; \
    int error = wide(text, base, &value); \
    if (error) \
      return error; \
    if (value != (wide_type)(type)value) \
      return -ERANGE; \
    *result = value; \
    return 0; \
  } \
  EXPORT_SYMBOL(name)
NARROW(kstrtouint, unsigned int, kstrtoull, unsigned long long);
NARROW(kstrtoint, int, kstrtoll, long long);
NARROW(kstrtou16, u16, kstrtoull, unsigned long long);
NARROW(kstrtos16, s16, kstrtoll, long long);
NARROW(kstrtou8, u8, kstrtoull, unsigned long long);
NARROW(kstrtos8, s8, kstrtoll, long long);
NARROW(_kstrtoul, unsigned long, kstrtoull, unsigned long long);
NARROW(_kstrtol, long, kstrtoll, long long);

int kstrtobool(const char *text, bool *result)
{
  if (!text)
    return -EINVAL;
  switch (*text) {
  case 'y': case 'Y': case 't': case 'T': case '1':
    *result = true;
    return 0;
  case 'n': case 'N': case 'f': case 'F': case '0':
    *result = false;
    return 0;
  case 'o': case 'O':
    if ((text[1] | 32) == 'n' || (text[1] | 32) == 'f') {
      *result = (text[1] | 32) == 'n';
      return 0;
    }
  }
  return -EINVAL;
}
EXPORT_SYMBOL(kstrtobool);

/* MARK: Kinds of parameters */
#define NUMBER(name, type, read, format) \
  int param_set_##name(const char *text, const struct kernel_param *parameter) \
  { \
    return read(text, 0, (type *)parameter->arg); \
  } \
  EXPORT_SYMBOL(param_set_##name); \
  int param_get_##name(char *buffer, const struct kernel_param *parameter) \
  { \
    return sprintf(buffer, format "\n", *(type *)parameter->arg); \
  } \
  EXPORT_SYMBOL(param_get_##name); \
  const struct kernel_param_ops param_ops_##name = {.set = param_set_##name, .get = param_get_##name}; \
  EXPORT_SYMBOL(param_ops_##name)
NUMBER(byte, unsigned char, kstrtou8, "%u");
NUMBER(short, short, kstrtos16, "%d");
NUMBER(ushort, unsigned short, kstrtou16, "%u");
NUMBER(int, int, kstrtoint, "%d");
NUMBER(uint, unsigned int, kstrtouint, "%u");
NUMBER(long, long, _kstrtol, "%ld");
NUMBER(ulong, unsigned long, _kstrtoul, "%lu");
NUMBER(ullong, unsigned long long, kstrtoull, "%llu");
NUMBER(hexint, unsigned int, kstrtouint, "%#08x");

int param_set_bool(const char *text, const struct kernel_param *parameter)
{
  /* A name alone switches on. */
  return kstrtobool(text && *text ? text : "1", parameter->arg);
}
EXPORT_SYMBOL(param_set_bool);
int param_get_bool(char *buffer, const struct kernel_param *parameter)
{
  return sprintf(buffer, "%c\n", *(bool *)parameter->arg ? 'Y' : 'N');
}
EXPORT_SYMBOL(param_get_bool);
const struct kernel_param_ops param_ops_bool = {
  .flags = KERNEL_PARAM_OPS_FL_NOARG, .set = param_set_bool, .get = param_get_bool};
EXPORT_SYMBOL(param_ops_bool);

int param_set_invbool(const char *text, const struct kernel_param *parameter)
{
  bool value;
  int error = kstrtobool(text, &value);

  if (!error)
    *(bool *)parameter->arg = !value;
  return error;
}
EXPORT_SYMBOL(param_set_invbool);
int param_get_invbool(char *buffer, const struct kernel_param *parameter)
{
  return sprintf(buffer, "%c\n", *(bool *)parameter->arg ? 'N' : 'Y');
}
EXPORT_SYMBOL(param_get_invbool);
const struct kernel_param_ops param_ops_invbool = {.set = param_set_invbool, .get = param_get_invbool};
EXPORT_SYMBOL(param_ops_invbool);

/* Set once, before the module runs, and kept. */
int param_set_charp(const char *text, const struct kernel_param *parameter)
{
  size_t size = strlen(text) + 1;
  char *copy = kmalloc(size, GFP_KERNEL);

  if (!copy)
    return -ENOMEM;
  memcpy(copy, text, size);
  *(char **)parameter->arg = copy;
  return 0;
}
EXPORT_SYMBOL(param_set_charp);
int param_get_charp(char *buffer, const struct kernel_param *parameter)
{
  return sprintf(buffer, "%s\n", *(char **)parameter->arg);
}
EXPORT_SYMBOL(param_get_charp);
const struct kernel_param_ops param_ops_charp = {.set = param_set_charp, .get = param_get_charp};
EXPORT_SYMBOL(param_ops_charp);

int param_set_copystring(const char *text, const struct kernel_param *parameter)
{
  const struct kparam_string *place = parameter->str;
  size_t length = strlen(text);

  if (length + 1 > place->maxlen)
    return -ENOSPC;
  memcpy(place->string, text, length + 1);
  return 0;
}
EXPORT_SYMBOL(param_set_copystring);
int param_get_string(char *buffer, const struct kernel_param *parameter)
{
  return sprintf(buffer, "%s\n", parameter->str->string);
}
EXPORT_SYMBOL(param_get_string);
const struct kernel_param_ops param_ops_string = {.set = param_set_copystring, .get = param_get_string};
EXPORT_SYMBOL(param_ops_string);

/* Elements with commas between them; how many came is noted where the module wants to know. */
static int set_array(const char *text, const struct kernel_param *parameter)
{
  const struct kparam_array *array = parameter->arr;
  struct kernel_param element = *parameter;
  unsigned int count = 0;
  char part[64];

  for (;;) {
    size_t length = 0;
    int error;

    while (text[length] && text[length] != ',')
      length++;
    if (length >= sizeof(part) || count >= array->max)
      return -EINVAL;
    memcpy(part, text, length);
    part[length] = 0;
    element.arg = array->elem + array->elemsize * count;
    error = array->ops->set(part, &element);
    if (error)
      return error;
    count++;
    if (!text[length])
      break;
    text += length + 1;
  }
  if (array->num)
    *array->num = count;
  return 0;
}
static int get_array(char *buffer, const struct kernel_param *parameter)
{
  const struct kparam_array *array = parameter->arr;
  struct kernel_param element = *parameter;
  unsigned int index, count = array->num ? *array->num : array->max;
  int length = 0;

  for (index = 0; index < count; index++) {
    /* The element's text ends with a newline, which becomes the comma. */
    if (index)
      buffer[length - 1] = ',';
    element.arg = array->elem + array->elemsize * index;
    length += array->ops->get(buffer + length, &element);
  }
  return length;
}
const struct kernel_param_ops param_array_ops = {.set = set_array, .get = get_array};
EXPORT_SYMBOL(param_array_ops);

/* MARK: The program's entry */
/* - and _ are the same in a parameter's name. */
static bool is_named(const char *one, const char *other)
{
  for (; *one || *other; one++, other++)
    if ((*one == '-' ? '_' : *one) != (*other == '-' ? '_' : *other))
      return false;
  return true;
}

int parameter_set(unsigned long section, unsigned long size, const char *name, const char *value)
{
  const struct kernel_param *parameter = (const struct kernel_param *)section;
  const struct kernel_param *end = (const struct kernel_param *)(section + size);

  for (; parameter + 1 <= end; parameter++)
    if (is_named(parameter->name, name))
      return parameter->ops->set ? parameter->ops->set(value, parameter) : -EPERM;
  return -ENOENT;
}
