/* spawn_loop [-d DIRECTORY] [-j JOURNAL] RUNS SLOTS PROGRAM [ARGUMENT…]: the least that running a
 * program many times can cost. Each of SLOTS threads spawns it, waits, and goes on at once. Prints the
 * runs per second, all commits included.
 *
 *   -d  each run has a directory of its own below DIRECTORY, with its output and errors in two files;
 *       they are read back, and all of it is deleted
 *   -j  how each run ended, and what it had written, is kept in an SQLite journal (WAL,
 *       synchronous=FULL, as PESC's): one transaction for all that has ended since the last one, on
 *       a thread of its own, and no run waits for it */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kMostBytes = 65536 };

typedef struct Ended {
  struct Ended* next;
  int number, status;
  size_t size;
  char bytes[];
} Ended;

static atomic_int next_run;
static int runs, slots;
static const char *directory, *journal;
static char** program;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t some_ended = PTHREAD_COND_INITIALIZER;
static Ended* ended;
static int running_slots;

static void fail(const char* what, int number) {
  fprintf(stderr, "spawn_loop: run %d: %s\n", number, what);
  exit(1);
}

static size_t read_file(const char* path, char* bytes) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t size = read(fd, bytes, kMostBytes);
  close(fd);
  return size < 0 ? 0 : (size_t)size;
}

static int spawn_and_wait(int number, posix_spawn_file_actions_t* actions) {
  char rank[32];
  snprintf(rank, sizeof rank, "PESC_RANK=%d", number);
  char* const environment[] = {rank, NULL};
  pid_t pid;
  int status = 0;
  if (posix_spawn(&pid, program[0], actions, NULL, program, environment) != 0) {
    fail("cannot be started", number);
  }
  if (waitpid(pid, &status, 0) != pid || status != 0) fail("has failed", number);
  return status;
}

static int run_in_directory(int number, char* bytes, size_t* size) {
  static _Thread_local char errors[kMostBytes];
  char dir[4096], out[4200], err[4200];
  snprintf(dir, sizeof dir, "%s/%d", directory, number);
  snprintf(out, sizeof out, "%s/output.txt", dir);
  snprintf(err, sizeof err, "%s/stderr.txt", dir);
  if (mkdir(dir, 0700) != 0) fail("cannot make its directory", number);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, out, O_WRONLY | O_CREAT | O_EXCL, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, err, O_WRONLY | O_CREAT | O_EXCL, 0600);
  int status = spawn_and_wait(number, &actions);
  posix_spawn_file_actions_destroy(&actions);
  *size = read_file(out, bytes);
  (void)read_file(err, errors);
  if (unlink(out) != 0 || unlink(err) != 0 || rmdir(dir) != 0) fail("cannot be cleaned up", number);
  return status;
}

static void run_once(int number) {
  static _Thread_local char bytes[kMostBytes];
  size_t size = 0;
  int status = directory ? run_in_directory(number, bytes, &size) : spawn_and_wait(number, NULL);
  if (!journal) return;
  Ended* one = malloc(sizeof *one + size);
  if (!one) fail("no memory", number);
  *one = (Ended){.number = number, .status = status, .size = size};
  memcpy(one->bytes, bytes, size);
  pthread_mutex_lock(&mutex);
  one->next = ended;
  ended = one;
  pthread_cond_signal(&some_ended);
  pthread_mutex_unlock(&mutex);
}

static void* slot(void* unused) {
  (void)unused;
  for (int number; (number = atomic_fetch_add(&next_run, 1)) < runs;) run_once(number);
  pthread_mutex_lock(&mutex);
  --running_slots;
  pthread_cond_signal(&some_ended);
  pthread_mutex_unlock(&mutex);
  return NULL;
}

static sqlite3* db;
static sqlite3_stmt* insert;

static void execute(const char* sql) {
  if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) fail(sqlite3_errmsg(db), -1);
}

static void open_journal(void) {
  if (sqlite3_open(journal, &db) != SQLITE_OK) fail(sqlite3_errmsg(db), -1);
  execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=2000;"
          "PRAGMA locking_mode=EXCLUSIVE; DROP TABLE IF EXISTS runs;"
          "CREATE TABLE runs(number INTEGER PRIMARY KEY, status INTEGER, output BLOB)");
  if (sqlite3_prepare_v2(db, "INSERT INTO runs VALUES(?,?,?)", -1, &insert, NULL) != SQLITE_OK) {
    fail(sqlite3_errmsg(db), -1);
  }
}

static void commit(Ended* batch) {
  execute("BEGIN");
  while (batch) {
    sqlite3_bind_int(insert, 1, batch->number);
    sqlite3_bind_int(insert, 2, batch->status);
    sqlite3_bind_blob(insert, 3, batch->bytes, (int)batch->size, SQLITE_STATIC);
    if (sqlite3_step(insert) != SQLITE_DONE) fail(sqlite3_errmsg(db), batch->number);
    sqlite3_reset(insert);
    Ended* next = batch->next;
    free(batch);
    batch = next;
  }
  execute("COMMIT");
}

static void commit_until_done(void) {
  for (;;) {
    pthread_mutex_lock(&mutex);
    while (!ended && running_slots > 0) pthread_cond_wait(&some_ended, &mutex);
    Ended* batch = ended;
    ended = NULL;
    pthread_mutex_unlock(&mutex);
    if (!batch) return;
    commit(batch);
  }
}

int main(int argc, char** argv) {
  int option;
  while ((option = getopt(argc, argv, "+d:j:")) != -1) {
    if (option == 'd') directory = optarg;
    else if (option == 'j') journal = optarg;
    else return 2;
  }
  if (argc - optind < 3) return 2;
  runs = atoi(argv[optind]);
  slots = atoi(argv[optind + 1]);
  program = argv + optind + 2;
  pthread_t threads[64];
  if (slots < 1 || slots > 64) return 2;
  if (journal) open_journal();
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  running_slots = slots;
  for (int i = 0; i < slots; ++i) pthread_create(&threads[i], NULL, slot, NULL);
  if (journal) commit_until_done();
  for (int i = 0; i < slots; ++i) pthread_join(threads[i], NULL);
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("%.1f\n", runs / ((double)(end.tv_sec - begin.tv_sec) +
                           (double)(end.tv_nsec - begin.tv_nsec) / 1e9));
  return 0;
}
