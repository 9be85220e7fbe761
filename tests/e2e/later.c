/* A clock that a test sets forward: preloaded, it adds to CLOCK_BOOTTIME, by which PESC's daemons
 * count, the seconds that stand in the file $PESC_TEST_LATER: six digits, which the test writes
 * over. What has set a timer is not woken by that: it finds at its next event that so much time has
 * passed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>

enum { DIGITS = 6 };

static time_t later(void) {
  static const volatile char* digits;
  if (digits == NULL) {
    const char* path = getenv("PESC_TEST_LATER");
    const int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    void* mapped = mmap(NULL, DIGITS, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) return 0;
    digits = mapped;
  }
  time_t seconds = 0;
  for (int i = 0; i < DIGITS; ++i) seconds = seconds * 10 + (digits[i] - '0');
  return seconds;
}

int clock_gettime(clockid_t clock, struct timespec* now) {
  static int (*real)(clockid_t, struct timespec*);
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "clock_gettime");
  const int result = real(clock, now);
  if (result == 0 && clock == CLOCK_BOOTTIME) now->tv_sec += later();
  return result;
}

/* The kernel does not know of it: moments are given to it in its own time. */
int timerfd_settime(int fd, int flags, const struct itimerspec* set, struct itimerspec* old) {
  static int (*real)(int, int, const struct itimerspec*, struct itimerspec*);
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "timerfd_settime");
  struct itimerspec in_its_time = *set;
  struct timespec* when = &in_its_time.it_value;
  const time_t seconds = later();
  if ((flags & TFD_TIMER_ABSTIME) != 0 && (when->tv_sec != 0 || when->tv_nsec != 0)) {
    if (when->tv_sec < seconds)
      *when = (struct timespec){0, 1};
    else
      when->tv_sec -= seconds;
    if (when->tv_sec == 0 && when->tv_nsec == 0) when->tv_nsec = 1; /* zero would disarm it */
  }
  return real(fd, flags, &in_its_time, old);
}
