/* spawn_loop RUNS SLOTS DIRECTORY PROGRAM: the least that running a program many times can cost.
 * Each of SLOTS threads spawns it with its output and errors in two files of a directory of its
 * own, waits, reads both and deletes everything. Prints the runs per second. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static atomic_int next_run;
static int runs;
static const char* directory;
static const char* program;

static size_t read_file(const char* path) {
  static _Thread_local char bytes[65536];
  int fd = open(path, O_RDONLY);
  if (fd < 0) return 0;
  ssize_t size = read(fd, bytes, sizeof bytes);
  close(fd);
  return size < 0 ? 0 : (size_t)size;
}

static int run_once(int number) {
  char dir[4096], out[4200], err[4200], rank[32];
  snprintf(dir, sizeof dir, "%s/%d", directory, number);
  snprintf(out, sizeof out, "%s/output.txt", dir);
  snprintf(err, sizeof err, "%s/stderr.txt", dir);
  snprintf(rank, sizeof rank, "PESC_RANK=%d", number);
  if (mkdir(dir, 0700) != 0) return 1;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, out, O_WRONLY | O_CREAT | O_EXCL, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, err, O_WRONLY | O_CREAT | O_EXCL, 0600);
  char* const arguments[] = {(char*)program, NULL};
  char* const environment[] = {rank, NULL};
  pid_t pid;
  int error = posix_spawn(&pid, program, &actions, NULL, arguments, environment);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  if (error != 0 || waitpid(pid, &status, 0) != pid || status != 0) return 1;
  if (read_file(out) == 0) return 1;
  (void)read_file(err);
  return unlink(out) != 0 || unlink(err) != 0 || rmdir(dir) != 0;
}

static void* slot(void* unused) {
  (void)unused;
  for (int number; (number = atomic_fetch_add(&next_run, 1)) < runs;) {
    if (run_once(number) != 0) {
      fprintf(stderr, "run %d failed\n", number);
      exit(1);
    }
  }
  return NULL;
}

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  runs = atoi(argv[1]);
  int slots = atoi(argv[2]);
  directory = argv[3];
  program = argv[4];
  pthread_t threads[64];
  if (slots < 1 || slots > 64) return 2;
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int i = 0; i < slots; ++i) pthread_create(&threads[i], NULL, slot, NULL);
  for (int i = 0; i < slots; ++i) pthread_join(threads[i], NULL);
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("%.0f\n", runs / ((double)(end.tv_sec - begin.tv_sec) +
                           (double)(end.tv_nsec - begin.tv_nsec) / 1e9));
  return 0;
}
