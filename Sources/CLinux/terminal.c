// Keeps a terminal in raw mode while the process runs in the foreground, and puts it back as it was on every way out:
// return from main, exit(3), a fatal signal, a stop by job control. In C because all of it runs in signal handlers,
// where only async-signal-safe functions may be called (signal-safety(7)); Swift promises that for nothing.
#include "CLinux.h"
#include <stdlib.h>

static struct termios original, raw;
static int terminal = -1;
static int wake_up = -1;
static volatile sig_atomic_t active;

static const int fatal[] = {SIGSEGV, SIGILL, SIGBUS, SIGFPE,  SIGABRT, SIGTRAP,
                            SIGSYS,  SIGTERM, SIGINT, SIGHUP, SIGQUIT};
enum { fatal_count = sizeof fatal / sizeof fatal[0] };
static struct sigaction previous[fatal_count];

int castor_terminal_in_foreground(int fd) { return tcgetpgrp(fd) == getpgrp(); }

// A process in the background would be stopped by tcsetattr, and the terminal's mode is the shell's business then.
static void set_mode(const struct termios *mode) {
  int saved = errno;
  if (castor_terminal_in_foreground(terminal)) tcsetattr(terminal, TCSANOW, mode);
  errno = saved;
}

void castor_terminal_restore(void) {
  if (!active) return;
  active = 0;
  set_mode(&original);
}

static void on_fatal(int signal_number, siginfo_t *information, void *context) {
  (void)context;
  castor_terminal_restore();
  for (int i = 0; i < fatal_count; i++)
    if (fatal[i] == signal_number) sigaction(signal_number, &previous[i], NULL);
  // A fault of the processor happens again when the handler returns, and then finds the previous disposition; a
  // signal that was sent has to be sent again. It stays pending until the handler returns.
  if (information->si_code <= 0) raise(signal_number);
}

static void on_stop(int signal_number) {
  int saved = errno;
  if (active) set_mode(&original);
  struct sigaction handler, by_default = {.sa_handler = SIG_DFL};
  sigaction(signal_number, &by_default, &handler);
  sigset_t stop, mask;
  sigemptyset(&stop);
  sigaddset(&stop, signal_number);
  raise(signal_number);
  sigprocmask(SIG_UNBLOCK, &stop, &mask); // The process stops here, and goes on here after SIGCONT.
  sigprocmask(SIG_SETMASK, &mask, NULL);
  if (active) set_mode(&raw); // An orphaned process group does not stop, and then nobody sends SIGCONT.
  sigaction(signal_number, &handler, NULL);
  errno = saved;
}

static void on_continue(int signal_number) {
  (void)signal_number;
  int saved = errno;
  if (active) set_mode(&raw);
  uint64_t one = 1;
  if (wake_up >= 0 && write(wake_up, &one, sizeof one) < 0) errno = saved;
  errno = saved;
}

int castor_terminal_make_raw(int fd, int continue_event) {
  if (tcgetattr(fd, &original) != 0) return -1;
  raw = original;
  raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
  raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  // Output processing stays: a line feed alone, in our messages or the guest's, shall begin a new line at its left end.
  terminal = fd;
  wake_up = continue_event;
  active = 1;

  static int installed;
  if (!installed) {
    installed = 1;
    atexit(castor_terminal_restore);
    for (int i = 0; i < fatal_count; i++) {
      struct sigaction action = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
      sigaction(fatal[i], &action, &previous[i]);
      // What the parent had ignored (nohup) stays ignored.
      if (!(previous[i].sa_flags & SA_SIGINFO) && previous[i].sa_handler == SIG_IGN)
        sigaction(fatal[i], &previous[i], NULL);
    }
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigaction(SIGTSTP, &stop, NULL);
    struct sigaction go_on = {.sa_handler = on_continue, .sa_flags = SA_RESTART};
    sigaction(SIGCONT, &go_on, NULL);
  }
  set_mode(&raw);
  return 0;
}
