// System calls without errno, malloc or any other state of the C library.
//
// A rank's shim shares the keeper's memory (CLONE_VM: nothing is copied, so starting a rank costs
// what posix_spawn costs), and with it the keeper's thread-local errno. Whatever runs in a shim
// therefore calls the kernel directly and keeps its state on its own stack. Where sharing is not
// possible (sanitizers track stacks and threads; other processors) the same code runs in a fork.
#pragma once

#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#ifndef SYS_clone3
#define SYS_clone3 435  // on every architecture
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PESC_SHARES_MEMORY 0
#elif defined(__x86_64__) || defined(__aarch64__)
#define PESC_SHARES_MEMORY 1
#else
#define PESC_SHARES_MEMORY 0
#endif

namespace pesc::keeper::raw {

#if PESC_SHARES_MEMORY && defined(__x86_64__)
inline long call6(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}
#elif PESC_SHARES_MEMORY && defined(__aarch64__)
inline long call6(long number, long a, long b, long c, long d, long e, long f) {
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  register long x3 asm("x3") = d;
  register long x4 asm("x4") = e;
  register long x5 asm("x5") = f;
  asm volatile("svc #0"
               : "+r"(x0)
               : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
               : "memory");
  return x0;
}
#else
inline long call6(long number, long a, long b, long c, long d, long e, long f) {
  long result = syscall(number, a, b, c, d, e, f);
  return result == -1 ? -errno : result;
}
#endif

inline long to_word(const void* pointer) { return reinterpret_cast<long>(pointer); }
inline long to_word(long value) { return value; }

// call(SYS_x, arguments…): the result, or -errno.
template <typename... Args>
long call(long number, Args... args) {
  long words[6] = {to_word(args)...};
  return call6(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}

// Runs `entry(argument)` in a new process, which ends with its result; returns the process's id or
// -errno. `stack_top` must be 16-byte aligned; it is not used where memory is not shared. With
// CLONE_VFORK among the flags the caller sleeps until the new process has exec'ed or ended.
inline long spawn(unsigned long flags, void* stack_top, int (*entry)(void*), void* argument) {
#if PESC_SHARES_MEMORY && defined(__x86_64__)
  void** top = static_cast<void**>(stack_top);
  *--top = argument;
  *--top = reinterpret_cast<void*>(entry);
  long result;
  register long r10 asm("r10") = 0;
  register long r8 asm("r8") = 0;
  asm volatile(
      "syscall\n\t"
      "testq %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xorl %%ebp, %%ebp\n\t"
      "popq %%rax\n\t"
      "popq %%rdi\n\t"
      "callq *%%rax\n\t"
      "movl %%eax, %%edi\n\t"
      "movl $60, %%eax\n\t"
      "syscall\n\t"
      "hlt\n"
      "1:"
      : "=a"(result)
      : "a"(static_cast<long>(SYS_clone)), "D"(flags | CLONE_VM), "S"(top), "d"(0L), "r"(r10),
        "r"(r8)
      : "rcx", "r11", "memory", "cc");
  return result;
#elif PESC_SHARES_MEMORY && defined(__aarch64__)
  void** top = static_cast<void**>(stack_top);
  *--top = argument;
  *--top = reinterpret_cast<void*>(entry);
  register long x8 asm("x8") = SYS_clone;
  register long x0 asm("x0") = static_cast<long>(flags | CLONE_VM);
  register long x1 asm("x1") = to_word(top);
  register long x2 asm("x2") = 0;
  register long x3 asm("x3") = 0;
  register long x4 asm("x4") = 0;
  asm volatile(
      "svc #0\n\t"
      "cbnz x0, 1f\n\t"
      "mov x29, xzr\n\t"
      "ldp x1, x0, [sp], #16\n\t"
      "blr x1\n\t"
      "mov x8, #93\n\t"
      "svc #0\n"
      "1:"
      : "+r"(x0)
      : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
      : "memory", "cc");
  return x0;
#else
  (void)stack_top;
  long result = call(SYS_clone, static_cast<long>(flags), 0L, 0L, 0L, 0L);
  if (result == 0) call(SYS_exit_group, static_cast<long>(entry(argument)));
  return result;
#endif
}

// The kernel's struct clone_args, up to the last member that is needed: older headers lack it.
struct CloneArguments {
  uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
      set_tid_size, cgroup;
};

// As spawn() with CLONE_VFORK and SIGCHLD, into a version 2 cgroup whose directory is open.
inline long spawn_into(long cgroup, void* stack, void* stack_top, int (*entry)(void*),
                       void* argument) {
  constexpr uint64_t kIntoCgroup = 0x200000000;
  constexpr uint64_t kSignal = 17;  // SIGCHLD
  CloneArguments arguments{};
  arguments.flags = CLONE_VFORK | kIntoCgroup;
  arguments.exit_signal = kSignal;
  arguments.cgroup = static_cast<uint64_t>(cgroup);
#if PESC_SHARES_MEMORY
  void** top = static_cast<void**>(stack_top);
  *--top = argument;
  *--top = reinterpret_cast<void*>(entry);
  arguments.flags |= CLONE_VM;
  arguments.stack = reinterpret_cast<uint64_t>(stack);
  arguments.stack_size =
      static_cast<uint64_t>(reinterpret_cast<char*>(top) - static_cast<char*>(stack));
#if defined(__x86_64__)
  long result;
  asm volatile(
      "syscall\n\t"
      "testq %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xorl %%ebp, %%ebp\n\t"
      "popq %%rax\n\t"
      "popq %%rdi\n\t"
      "callq *%%rax\n\t"
      "movl %%eax, %%edi\n\t"
      "movl $60, %%eax\n\t"
      "syscall\n\t"
      "hlt\n"
      "1:"
      : "=a"(result)
      : "a"(static_cast<long>(SYS_clone3)), "D"(&arguments), "S"(sizeof(arguments))
      : "rcx", "r11", "memory", "cc");
  return result;
#else
  register long x8 asm("x8") = SYS_clone3;
  register long x0 asm("x0") = to_word(&arguments);
  register long x1 asm("x1") = static_cast<long>(sizeof(arguments));
  asm volatile(
      "svc #0\n\t"
      "cbnz x0, 1f\n\t"
      "mov x29, xzr\n\t"
      "ldp x1, x0, [sp], #16\n\t"
      "blr x1\n\t"
      "mov x8, #93\n\t"
      "svc #0\n"
      "1:"
      : "+r"(x0)
      : "r"(x8), "r"(x1)
      : "memory", "cc");
  return x0;
#endif
#else
  (void)stack;
  (void)stack_top;
  long result = call(SYS_clone3, &arguments, static_cast<long>(sizeof(arguments)));
  if (result == 0) call(SYS_exit_group, static_cast<long>(entry(argument)));
  return result;
#endif
}

// "123" at `out`; returns the end. No terminator.
inline char* print_number(char* out, unsigned long value) {
  char digits[24];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  while (count > 0) *out++ = digits[--count];
  return out;
}

inline char* print_text(char* out, const char* text) {
  while (*text != '\0') *out++ = *text++;
  return out;
}

inline long length(const char* text) {
  long count = 0;
  while (text[count] != '\0') ++count;
  return count;
}

}  // namespace pesc::keeper::raw
