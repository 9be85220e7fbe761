/* sqlite_rows JOURNAL: reads every row of every table there is, and prints {"read_s": …, "rows": …}.
 *
 * sqlite_rows JOURNAL ROWS BATCH: rows of about an attempt's size, BATCH of them in each transaction,
 * in WAL with synchronous=FULL. Prints {"rows_s": …, "commit_ms": the median, "cpu_s": …}. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static sqlite3* db;

static void check(int result, int wanted) {
  if (result == wanted) return;
  fprintf(stderr, "%s\n", sqlite3_errmsg(db));
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int compare(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return x < y ? -1 : x > y;
}

/* Every column of every row is looked at, as whoever wants to know them must. */
static int read_all(const char* path) {
  const double begin = now();
  check(sqlite3_open(path, &db), SQLITE_OK);
  sqlite3_stmt *tables, *rows;
  check(sqlite3_prepare_v2(db, "SELECT name FROM sqlite_master WHERE type = 'table'", -1, &tables, NULL),
        SQLITE_OK);
  long long count = 0, sum = 0;
  while (sqlite3_step(tables) == SQLITE_ROW) {
    char sql[200];
    snprintf(sql, sizeof sql, "SELECT * FROM \"%s\"", (const char*)sqlite3_column_text(tables, 0));
    check(sqlite3_prepare_v2(db, sql, -1, &rows, NULL), SQLITE_OK);
    for (; sqlite3_step(rows) == SQLITE_ROW; ++count) {
      for (int i = 0; i < sqlite3_column_count(rows); ++i) {
        sum += sqlite3_column_type(rows, i) == SQLITE_INTEGER ? sqlite3_column_int64(rows, i)
                                                              : sqlite3_column_bytes(rows, i);
      }
    }
    sqlite3_finalize(rows);
  }
  printf("{\"read_s\": %.4f, \"rows\": %lld, \"sum\": %lld}\n", now() - begin, count, sum);
  return 0;
}

int main(int argc, char** argv) {
  if (argc == 2) return read_all(argv[1]);
  if (argc != 4) return 2;
  const int rows = atoi(argv[2]), batch = atoi(argv[3]);
  check(sqlite3_open(argv[1], &db), SQLITE_OK);
  check(sqlite3_exec(db,
                     "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=2000;"
                     "PRAGMA locking_mode=EXCLUSIVE;"
                     "CREATE TABLE attempts(job INTEGER, rank INTEGER, attempt INTEGER, worker INTEGER,"
                     "state INTEGER, started INTEGER, duration INTEGER, cpu INTEGER, rss INTEGER,"
                     "crc INTEGER, PRIMARY KEY(job, rank, attempt)) WITHOUT ROWID",
                     NULL, NULL, NULL),
        SQLITE_OK);
  sqlite3_stmt* insert;
  check(sqlite3_prepare_v2(db, "INSERT INTO attempts VALUES(?,?,1,?,2,?,1,1,1048576,?)", -1, &insert, NULL),
        SQLITE_OK);
  const int batches = (rows + batch - 1) / batch;
  double* took = calloc((size_t)batches, sizeof *took);
  if (!took) return 1;
  const double begin = now();
  for (int i = 0, row = 0; i < batches; ++i) {
    const double batch_begin = now();
    check(sqlite3_exec(db, "BEGIN", NULL, NULL, NULL), SQLITE_OK);
    for (int j = 0; j < batch && row < rows; ++j, ++row) {
      sqlite3_bind_int64(insert, 1, 0x1234567812345678);
      sqlite3_bind_int(insert, 2, row);
      sqlite3_bind_int64(insert, 3, 0x2345678923456789 + row % 100);
      sqlite3_bind_int64(insert, 4, 1700000000000 + row);
      sqlite3_bind_int64(insert, 5, (long long)row * 2654435761u % 4294967296);
      check(sqlite3_step(insert), SQLITE_DONE);
      sqlite3_reset(insert);
    }
    check(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    took[i] = now() - batch_begin;
  }
  const double wall = now() - begin;
  qsort(took, (size_t)batches, sizeof *took, compare);
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  printf("{\"rows_s\": %.1f, \"commit_ms\": %.4f, \"cpu_s\": %.4f}\n", rows / wall,
         took[batches / 2] * 1000,
         (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
             (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
  return 0;
}
