/* Each step is also a byte in the file STEPS_LOG, if that is set: what was really done, twice or
 * once.
 *
 * A rank that works for SECONDS (its first argument) in steps of half a second, and saves its state
 * after each. It sleeps instead of computing, so that many fit on a small machine. */
#include <time.h>

#include "pesc/rank.h"

static void note_step(void) {
  const char* const path = getenv("STEPS_LOG");
  const int fd = path != NULL ? open(path, O_WRONLY | O_APPEND) : -1;
  if (fd >= 0 && write(fd, ".", 1) != 1) exit(74);
  if (fd >= 0) (void)close(fd);
}

int main(int argc, char** argv) {
  size_t size = 0;
  int step = 0, steps, begin;
  int* saved;
  pesc_take_args(&argc, argv);
  steps = 2 * (argc > 1 ? atoi(argv[1]) : 30);
  saved = (int*)pesc_load_checkpoint("step", &size);
  if (saved != NULL && size == sizeof *saved) step = *saved;
  free(saved);
  begin = step;
  while (step < steps) {
    struct timespec left = {0, 500000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
    ++step;
    note_step();
    if (pesc_save_checkpoint("step", &step, sizeof step) != 0) return 74;
    (void)pesc_progress(step / (double)steps, NULL);
  }
  printf("rank %d: %d steps, the last attempt began at %d\n", pesc_rank(), steps, begin);
  return 0;
}
