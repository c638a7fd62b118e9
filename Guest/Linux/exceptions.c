// SPDX-License-Identifier: GPL-2.0
/*
 * Exceptions in modules: the tables of bugs and of exceptions that each module brings say where its code goes on. The kernel has passed the
 * exception on to a call into this process, whose answer is that address.
 */
#include "internal.h"
#include <asm/asm.h>
#include <asm/extable.h>
#include <asm/trap_pf.h>
#include <asm/trapnr.h>
#include <linux/bitfield.h>
#include <linux/bug.h>

struct loaded {
  struct container_module module;
  struct loaded *next;
};
static struct loaded *all_loaded;

int module_loaded(const struct container_module *module)
{
  struct loaded *loaded = kmalloc(sizeof(*loaded), GFP_KERNEL);

  if (!loaded)
    return -ENOMEM;
  loaded->module = *module;
  loaded->next = all_loaded;
  all_loaded = loaded;
  return 0;
}

static const struct container_module *module_at(unsigned long address)
{
  struct loaded *loaded;

  for (loaded = all_loaded; loaded; loaded = loaded->next)
    if (address - loaded->module.base < loaded->module.size)
      return &loaded->module;
  return NULL;
}

/* MARK: BUG and WARN */
static struct bug_entry *bug_at(const struct container_module *module, unsigned long address)
{
  struct bug_entry *bug = (void *)module->bugs;
  struct bug_entry *end = (void *)(module->bugs + module->bugs_size);

  for (; bug + 1 <= end; bug++)
    if ((unsigned long)&bug->bug_addr_disp + bug->bug_addr_disp == address)
      return bug;
  return NULL;
}

/* Where the code goes on; 0: nowhere. */
static unsigned long bug(const struct container_module *module, unsigned long address)
{
  struct bug_entry *bug = bug_at(module, address);
  const char *file;

  if (!bug)
    return 0;
  file = (const char *)&bug->file_disp + bug->file_disp;
  if (!(bug->flags & BUGFLAG_WARNING)) {
    _printk("kernel BUG at %s:%u! %s+0x%lx [%s]\n", file, bug->line, module->name, address - module->base, current->comm);
    return 0;
  }
  if (!(bug->flags & BUGFLAG_DONE)) {
    if (bug->flags & BUGFLAG_ONCE)
      bug->flags |= BUGFLAG_DONE;
    _printk("WARNING: at %s:%u %s+0x%lx [%s]\n", file, bug->line, module->name, address - module->base, current->comm);
  }
  /* Behind `ud2`. */
  return address + 2;
}

/* MARK: The exception table */
/* What a piece of code below puts into its register, and where it goes then. */
unsigned long exception_value, exception_target;

#define LANDING(name) \
  asm(".text\nexception_landing_" #name ":\nmovq exception_value(%rip), %" #name "\njmpq *exception_target(%rip)\n"); \
  extern void exception_landing_##name(void)
LANDING(rax);
LANDING(rcx);
LANDING(rdx);
LANDING(rbx);
LANDING(rsp);
LANDING(rbp);
LANDING(rsi);
LANDING(rdi);
LANDING(r8);
LANDING(r9);
LANDING(r10);
LANDING(r11);
LANDING(r12);
LANDING(r13);
LANDING(r14);
LANDING(r15);
/* In the order of instructions' encoding, as the table's numbers are. */
static void (*const landings[16])(void) = {
  exception_landing_rax, exception_landing_rcx, exception_landing_rdx, exception_landing_rbx, exception_landing_rsp,
  exception_landing_rbp, exception_landing_rsi, exception_landing_rdi, exception_landing_r8,  exception_landing_r9,
  exception_landing_r10, exception_landing_r11, exception_landing_r12, exception_landing_r13, exception_landing_r14,
  exception_landing_r15};

static unsigned long land(unsigned int number, long value, unsigned long target)
{
  exception_value = value;
  exception_target = target;
  return (unsigned long)landings[number & 15];
}

static unsigned long fixup(const struct container_module *module, int vector, unsigned long address)
{
  const struct exception_table_entry *entry = (void *)module->exceptions;
  const struct exception_table_entry *end = (void *)(module->exceptions + module->exceptions_size);
  unsigned long target;

  for (; entry + 1 <= end; entry++) {
    if ((unsigned long)&entry->insn + entry->insn != address)
      continue;
    target = (unsigned long)&entry->fixup + entry->fixup;
    switch (FIELD_GET(EX_DATA_TYPE_MASK, entry->data)) {
    case EX_TYPE_DEFAULT:
    case EX_TYPE_DEFAULT_MCE_SAFE:
    case EX_TYPE_UACCESS:
    case EX_TYPE_WRMSR: return target;
    case EX_TYPE_FAULT:
    case EX_TYPE_FAULT_MCE_SAFE:
    case EX_TYPE_COPY: return land(0, vector, target);
    case EX_TYPE_IMM_REG:
      return land(FIELD_GET(EX_DATA_REG_MASK, entry->data), FIELD_GET(EX_DATA_IMM_MASK, entry->data), target);
    case EX_TYPE_RDMSR_SAFE:
    case EX_TYPE_WRMSR_SAFE: return land(FIELD_GET(EX_DATA_REG_MASK, entry->data), -EIO, target);
    }
    _printk("an entry of the exception table of %s has a type that is not known: %d\n", module->name,
            (int)FIELD_GET(EX_DATA_TYPE_MASK, entry->data));
    return 0;
  }
  return 0;
}

/* MARK: The program's entry */
unsigned long exception(int vector, unsigned long address, unsigned long error, unsigned long instruction)
{
  const struct container_module *module = module_at(instruction);
  unsigned long target = 0;

  if (!module)
    return 0;
  if (vector == X86_TRAP_UD)
    target = bug(module, instruction);
  if (!target)
    target = fixup(module, vector, instruction);
  if (target || vector == X86_TRAP_UD)
    return target;
  if (vector == X86_TRAP_PF)
    _printk("unable to handle a %s at 0x%lx: %s+0x%lx [%s]\n",
            error & X86_PF_INSTR ? "jump" : error & X86_PF_WRITE ? "store" : "load", address, module->name,
            instruction - module->base, current->comm);
  else
    _printk("exception %d: %s+0x%lx [%s]\n", vector, module->name, instruction - module->base, current->comm);
  return 0;
}
