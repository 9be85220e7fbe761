// What bench/owner runs in the foreground, and how it sees when ranks stop using the processors.
//
//   calibrate SECONDS              prints how many steps one processor does in that time
//   run STEPS PROCESSES            does them in each of so many processes at once; prints seconds
//   reaction MACHINE KEEPER CPUS   logs somebody in on the fake MACHINE; prints the milliseconds until
//                                  the ranks below KEEPER have given back their CPUS processors
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kMostPids = 4096 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void work(uint64_t steps) {
  volatile uint64_t x = 88172645463325252u;
  for (uint64_t i = 0; i < steps; ++i) {
    uint64_t y = x;
    y ^= y << 13;
    y ^= y >> 7;
    y ^= y << 17;
    x = y;
  }
}

static int calibrate(double seconds) {
  uint64_t steps = 1 << 20;
  double took = 0;
  for (;;) {
    double began = now();
    work(steps);
    took = now() - began;
    if (took > 0.5) break;
    steps *= 2;
  }
  printf("%llu\n", (unsigned long long)((double)steps / took * seconds));
  return 0;
}

static int run(uint64_t steps, int processes) {
  double began = now();
  for (int i = 0; i < processes; ++i) {
    if (fork() == 0) {
      work(steps);
      _exit(0);
    }
  }
  while (wait(NULL) > 0) {
  }
  printf("%.3f\n", now() - began);
  return 0;
}

static int add_children(int pid, int *pids, int count) {
  char path[64], line[16384];
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
  FILE *file = fopen(path, "r");
  if (file == NULL) return count;
  size_t got = fread(line, 1, sizeof line - 1, file);
  fclose(file);
  line[got] = 0;
  for (char *word = strtok(line, " "); word != NULL && count < kMostPids; word = strtok(NULL, " ")) {
    pids[count++] = atoi(word);
  }
  return count;
}

static double used_by(const int *pids, int count) {
  double seconds = 0;
  for (int i = 0; i < count; ++i) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/schedstat", pids[i]);
    FILE *file = fopen(path, "r");
    unsigned long long ns = 0;
    if (file == NULL) continue;
    if (fscanf(file, "%llu", &ns) == 1) seconds += (double)ns / 1e9;
    fclose(file);
  }
  return seconds;
}

static void log_in(const char *machine) {
  char made[4096], moved[4096];
  snprintf(made, sizeof made, "%s/session", machine);
  snprintf(moved, sizeof moved, "%s/run/systemd/sessions/1", machine);
  FILE *file = fopen(made, "w");
  if (file == NULL) exit(1);
  fprintf(file, "USER=owner\nSTATE=active\nREMOTE=1\nCLASS=user\nREALTIME=%lld000000\n",
          (long long)time(NULL));
  fclose(file);
  if (rename(made, moved) != 0) exit(1);
}

// How long the ranks had, of the second after the login, more than they have in the end.
static int reaction(const char *machine, int keeper, double cpus) {
  static int pids[kMostPids];
  int count = add_children(keeper, pids, 0);
  for (int i = 0; i < count; ++i) count = add_children(pids[i], pids, count);
  double used = used_by(pids, count), at = now();
  usleep(500000);
  const double before = (used_by(pids, count) - used) / (now() - at);
  if (before < 0.6 * cpus) {
    fprintf(stderr, "the ranks have %.0f %% of the processors: this machine is not quiet\n",
            100 * before / cpus);
    return 1;
  }
  used = used_by(pids, count);
  log_in(machine);
  at = now();
  usleep(1000000);
  const double second = now() - at, in_second = used_by(pids, count) - used;
  used = used_by(pids, count);
  at = now();
  usleep(1000000);
  const double after = (used_by(pids, count) - used) / (now() - at);
  if (after > 0.25 * cpus) {
    fprintf(stderr, "the ranks go on\n");
    return 1;
  }
  printf("%.0f\n", 1000 * (in_second - after * second) / (before - after));
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "calibrate") == 0) return calibrate(atof(argv[2]));
  if (argc == 4 && strcmp(argv[1], "run") == 0) return run(strtoull(argv[2], NULL, 10), atoi(argv[3]));
  if (argc == 5 && strcmp(argv[1], "reaction") == 0) {
    return reaction(argv[2], atoi(argv[3]), atof(argv[4]));
  }
  fprintf(stderr, "usage: see the top of owner_foreground.c\n");
  return 2;
}
