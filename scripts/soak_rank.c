/* What scripts/soak runs as ranks. What it leaves is a function of --soak-seed and the rank alone,
 * whatever happens to its attempts, so that the results themselves prove that each rank was run to
 * its end, once: stdout, and output_dir/data.bin. How long it takes differs from rank to rank. */
#include <time.h>

#include "pesc/rank.h"

static uint64_t state;
static int verifying; /* compute what a rank leaves, without its time, its faults and its files */

static uint64_t next_number(void) {
  uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static void rest_ms(long ms) {
  struct timespec left = {ms / 1000, ms % 1000 * 1000000};
  if (verifying) return;
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

/* A grandchild in a session of its own that would outlive everything. */
static void leave_someone_behind(void) {
  if (fork() != 0) return;
  (void)setsid();
  if (fork() == 0) rest_ms(3600 * 1000L);
  _exit(0);
}

/* Work in steps, each saved: an attempt goes on from where the one before it was. */
static uint64_t work_in_steps(int steps, long step_ms) {
  uint64_t sum = 0, saved[3] = {0, 0, 0};
  size_t size = 0;
  uint64_t* const loaded = verifying ? NULL : (uint64_t*)pesc_load_checkpoint("state", &size);
  int step = 0;
  if (loaded != NULL && size == sizeof saved) {
    step = (int)loaded[0];
    sum = loaded[1];
    state = loaded[2];
  }
  free(loaded);
  for (; step < steps; ++step) {
    rest_ms(step_ms);
    sum = sum * 31 + next_number();
    if (verifying) continue;
    saved[0] = (uint64_t)step + 1;
    saved[1] = sum;
    saved[2] = state;
    if (pesc_save_checkpoint("state", saved, sizeof saved) != 0) exit(74);
    (void)pesc_progress((step + 1) / (double)steps, NULL);
  }
  return sum;
}

static uint64_t kind_of(uint64_t seed, int rank) {
  state = seed ^ ((uint64_t)rank << 20);
  return next_number() % 100;
}

static uint64_t work_of(uint64_t kind) {
  if (kind < 70) {
    rest_ms((long)(next_number() % 100));
    return next_number();
  }
  if (kind < 98) return work_in_steps(10, 20 + (long)(next_number() % 100));
  return work_in_steps(40, 250 + (long)(next_number() % 250));
}

static size_t data_words(uint64_t kind) { return kind == 50 ? 131072 : 512; }

static int write_data(uint64_t seed, int rank, size_t words) {
  char path[4096];
  FILE* file;
  size_t i;
  (void)snprintf(path, sizeof path, "%s/data.bin", pesc_output_dir());
  file = fopen(path, "wb");
  if (file == NULL) return 1;
  state = seed + (uint64_t)rank * 7919;
  for (i = 0; i < words; ++i) {
    const uint64_t word = next_number();
    if (fwrite(&word, sizeof word, 1, file) != 1) {
      (void)fclose(file);
      return 1;
    }
  }
  return fclose(file) != 0;
}

static int data_is_right(const char* directory, uint64_t seed, int rank, size_t words) {
  char path[4096];
  FILE* file;
  uint64_t word;
  size_t i = 0;
  (void)snprintf(path, sizeof path, "%s/rank-%d/data.bin", directory, rank);
  file = fopen(path, "rb");
  if (file == NULL) return 0;
  state = seed + (uint64_t)rank * 7919;
  while (fread(&word, 1, sizeof word, file) == sizeof word && word == next_number()) ++i;
  (void)fclose(file);
  return i == words;
}

/* soak_rank SEED --verify DIR N: the results of a job in DIR, as `pesc fetch` left them. */
static int verify(uint64_t seed, const char* directory, int ranks) {
  char path[4096], line[128], expected[128];
  FILE* merged;
  int rank, wrong = 0;
  (void)snprintf(path, sizeof path, "%s/output.txt", directory);
  merged = fopen(path, "r");
  if (merged == NULL) return fprintf(stderr, "%s cannot be read\n", path), 2;
  verifying = 1;
  for (rank = 0; rank < ranks; ++rank) {
    const uint64_t kind = kind_of(seed, rank);
    (void)snprintf(expected, sizeof expected, "rank %d of %d: %016llx\n", rank, ranks,
                   (unsigned long long)work_of(kind));
    if (fgets(line, sizeof line, merged) == NULL || strcmp(line, expected) != 0 ||
        !data_is_right(directory, seed, rank, data_words(kind))) {
      if (++wrong <= 10) fprintf(stderr, "rank %d is wrong; expected %s", rank, expected);
    }
  }
  if (fgets(line, sizeof line, merged) != NULL) {
    ++wrong;
    fprintf(stderr, "more results than ranks: %s", line);
  }
  (void)fclose(merged);
  printf("%d\n", wrong);
  return wrong != 0;
}

int main(int argc, char** argv) {
  uint64_t seed, sum, kind;
  pesc_take_args(&argc, argv);
  seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
  if (argc == 5 && strcmp(argv[2], "--verify") == 0) return verify(seed, argv[3], atoi(argv[4]));
  kind = kind_of(seed, pesc_rank());
  if (kind < 3) leave_someone_behind();
  if (kind >= 3 && kind < 8 && pesc_attempt() == 1) return 3; /* a failure of its own */
  sum = work_of(kind);
  if (write_data(seed, pesc_rank(), data_words(kind)) != 0) return 74;
  printf("rank %d of %d: %016llx\n", pesc_rank(), pesc_world_size(), (unsigned long long)sum);
  return fflush(stdout) == 0 ? 0 : 74;
}
