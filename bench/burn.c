/* burn MILLISECONDS: uses the processor for as long, counted from main on; what others take of it
 * meanwhile does not count. */
#include <stdlib.h>
#include <time.h>

static long long used_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  volatile double x = 1;
  for (long long end = used_ns() + atoll(argv[1]) * 1000000; used_ns() < end;) {
    for (int i = 0; i < 2000; ++i) x = x * 1.0000001 + 1e-9;
  }
  return 0;
}
