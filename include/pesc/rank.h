/* What PESC tells a rank, for the program that runs as one: C99, C++14 and CUDA, this file alone.
 *
 *   #include "pesc/rank.h"
 *   int main(int argc, char** argv) {
 *     pesc_take_args(&argc, argv);   // optional: your own parser never meets PESC's arguments
 *     simulate(pesc_rank(), pesc_world_size(), pesc_seed());
 *     ... write into pesc_output_dir() ...
 *   }
 *
 * Started by PESC, the values are those of the job. Started alone, they are those of the command
 * line (--rank 3 ...), else of the environment (PESC_RANK=3), else rank 0 of 1 in ".", with
 * "./checkpoint" and "./output", which are made when they are first asked for.
 *
 * Functions that return int and can fail return 0, or -1 with errno. Strings stay valid for the
 * life of the process. Call any function once before you start threads; after that, all but
 * pesc_progress() may be called from any thread. */
#ifndef PESC_RANK_H_
#define PESC_RANK_H_

#if !defined(__cplusplus) && !defined(_POSIX_C_SOURCE) && !defined(_GNU_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#ifdef __cplusplus
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>
#define PESC_INLINE_ inline
extern "C" {
#else
#define PESC_INLINE_ static inline
#endif

/* Strict C99 hides these when another header came first. */
#if defined(__STRICT_ANSI__) && !defined(__cplusplus)
extern int fsync(int);
#endif
#ifndef O_CLOEXEC
#define O_CLOEXEC 0
#endif

struct pesc_state_ {
  int ready, alone, rank, world_size, master_port, attempt, parameter_count;
  const char *app_dir, *checkpoint_dir, *output_dir, *master_addr, *job, *events;
  const char** parameters;
  uint64_t seed;
  double last_fraction;
  unsigned long last_text;
};

/* Weak: one state for all files of a program, C and C++ together. */
#if defined(__GNUC__)
__attribute__((__weak__))
#else
static
#endif
struct pesc_state_ pesc_the_state_;

#ifdef __cplusplus
} /* extern "C" */
#endif

/* ---- what the functions below share ---------------------------------------------------------- */

PESC_INLINE_ const char* pesc_environment_(const char* name, const char* otherwise) {
  const char* value = getenv(name);
  return value != NULL && value[0] != '\0' ? value : otherwise;
}

PESC_INLINE_ int pesc_int_(const char* text, int otherwise) {
  char* end;
  long value;
  if (text == NULL || text[0] == '\0') return otherwise;
  value = strtol(text, &end, 10);
  return *end == '\0' && value >= 0 && value <= INT32_MAX ? (int)value : otherwise;
}

/* The SplitMix64 finaliser over the job's seed and the rank, as PESC computes PESC_SEED. */
PESC_INLINE_ uint64_t pesc_seed_of_(uint64_t job_seed, int rank) {
  uint64_t z = job_seed + ((uint64_t)rank + 1) * UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

PESC_INLINE_ void pesc_split_parameters_(const char* lines) {
  size_t length = strlen(lines), count = 1, i;
  char* copy;
  if (length == 0) return;
  for (i = 0; i < length; ++i) count += lines[i] == '\n';
  copy = (char*)malloc(length + 1);
  pesc_the_state_.parameters = (const char**)calloc(count + 1, sizeof(char*));
  if (copy == NULL || pesc_the_state_.parameters == NULL) return;
  memcpy(copy, lines, length + 1);
  pesc_the_state_.parameters[pesc_the_state_.parameter_count++] = copy;
  for (i = 0; i < length; ++i) {
    if (copy[i] != '\n') continue;
    copy[i] = '\0';
    pesc_the_state_.parameters[pesc_the_state_.parameter_count++] = copy + i + 1;
  }
}

PESC_INLINE_ void pesc_ready_(void) {
  struct pesc_state_* s = &pesc_the_state_;
  const char* seed;
  if (s->ready) return;
  s->ready = 1;
  s->job = pesc_environment_("PESC_JOB", "");
  s->alone = s->job[0] == '\0';
  s->app_dir = pesc_environment_("PESC_APP_DIR", ".");
  s->checkpoint_dir = pesc_environment_("PESC_CHECKPOINT_DIR", "./checkpoint");
  s->output_dir = pesc_environment_("PESC_OUTPUT_DIR", "./output");
  s->rank = pesc_int_(getenv("PESC_RANK"), 0);
  s->world_size = pesc_int_(getenv("PESC_WORLD_SIZE"), 1);
  s->master_addr = pesc_environment_("PESC_MASTER_ADDR", "127.0.0.1");
  s->master_port = pesc_int_(getenv("PESC_MASTER_PORT"), 9000);
  s->attempt = pesc_int_(getenv("PESC_ATTEMPT"), 1);
  s->events = pesc_environment_("PESC_EVENTS", NULL);
  s->last_fraction = -1;
  pesc_split_parameters_(pesc_environment_("PESC_PARAMETERS", ""));
  seed = pesc_environment_("PESC_SEED", NULL);
  s->seed = seed != NULL ? strtoull(seed, NULL, 10) : pesc_seed_of_(0, s->rank);
}

/* A directory and those above it, made when the program runs alone; PESC makes its own. */
PESC_INLINE_ const char* pesc_made_(const char* directory) {
  char path[4096];
  size_t length = strlen(directory), i;
  if (!pesc_the_state_.alone || length == 0 || length >= sizeof path) return directory;
  memcpy(path, directory, length + 1);
  for (i = 1; i <= length; ++i) {
    if (path[i] != '/' && path[i] != '\0') continue;
    path[i] = '\0';
    (void)mkdir(path, 0777);
    path[i] = i < length ? '/' : '\0';
  }
  return directory;
}

/* ---- the contract ---------------------------------------------------------------------------- */

PESC_INLINE_ int pesc_rank(void) { /* 0 ... pesc_world_size() - 1 */
  pesc_ready_();
  return pesc_the_state_.rank;
}
PESC_INLINE_ int pesc_world_size(void) {
  pesc_ready_();
  return pesc_the_state_.world_size;
}
PESC_INLINE_ const char* pesc_app_dir(void) { /* the working directory at the start */
  pesc_ready_();
  return pesc_the_state_.app_dir;
}
PESC_INLINE_ const char* pesc_checkpoint_dir(void) { /* is there again after a restart */
  pesc_ready_();
  return pesc_made_(pesc_the_state_.checkpoint_dir);
}
PESC_INLINE_ const char* pesc_output_dir(void) { /* what is written here comes back */
  pesc_ready_();
  return pesc_made_(pesc_the_state_.output_dir);
}
PESC_INLINE_ const char* pesc_master_addr(void) { /* parallel jobs: where rank 0 is */
  pesc_ready_();
  return pesc_the_state_.master_addr;
}
PESC_INLINE_ int pesc_master_port(void) {
  pesc_ready_();
  return pesc_the_state_.master_port;
}
PESC_INLINE_ int pesc_parameter_count(void) {
  pesc_ready_();
  return pesc_the_state_.parameter_count;
}
PESC_INLINE_ const char* pesc_parameter(int index) { /* NULL: there is none */
  pesc_ready_();
  return index >= 0 && index < pesc_the_state_.parameter_count ? pesc_the_state_.parameters[index]
                                                               : NULL;
}
PESC_INLINE_ uint64_t pesc_seed(void) { /* for random streams; the same on every attempt */
  pesc_ready_();
  return pesc_the_state_.seed;
}
PESC_INLINE_ int pesc_attempt(void) { /* 1, 2, ...: which try at this rank it is */
  pesc_ready_();
  return pesc_the_state_.attempt;
}
PESC_INLINE_ const char* pesc_job(void) { /* the job's id; "" when the program runs alone */
  pesc_ready_();
  return pesc_the_state_.job;
}
PESC_INLINE_ int pesc_is_alone(void) {
  pesc_ready_();
  return pesc_the_state_.alone;
}

/* ---- arguments ------------------------------------------------------------------------------- */

PESC_INLINE_ void pesc_set_parameters_(int count, char** values) {
  const char** copy = (const char**)calloc((size_t)count + 1, sizeof(char*));
  int i;
  if (copy == NULL) return;
  for (i = 0; i < count; ++i) copy[i] = values[i];
  pesc_the_state_.parameters = copy;
  pesc_the_state_.parameter_count = count;
}

/* Which of PESC's flags an argument is: an index of the table, or -1; its value behind '=', if any.
 */
PESC_INLINE_ int pesc_flag_(const char* argument, int short_too, const char** value) {
  static const char* const names[] = {"app_dir",    "checkpoint_dir", "output_dir",  "rank",
                                      "world_size", "master_addr",    "master_port", "parameters"};
  static const char letters[] = "acorwdtp";
  int i;
  *value = NULL;
  if (argument[0] != '-') return -1;
  if (short_too && argument[1] != '\0' && argument[2] == '\0') {
    const char* const found = strchr(letters, argument[1]);
    return found != NULL ? (int)(found - letters) : -1;
  }
  if (argument[1] != '-') return -1;
  for (i = 0; i < 8; ++i) {
    const size_t length = strlen(names[i]);
    if (strncmp(argument + 2, names[i], length) != 0) continue;
    if (argument[2 + length] == '=') *value = argument + 3 + length;
    if (argument[2 + length] == '=' || argument[2 + length] == '\0') return i;
  }
  return -1;
}

PESC_INLINE_ void pesc_set_(int flag, const char* value) {
  struct pesc_state_* s = &pesc_the_state_;
  switch (flag) {
    case 0:
      s->app_dir = value;
      break;
    case 1:
      s->checkpoint_dir = value;
      break;
    case 2:
      s->output_dir = value;
      break;
    case 3:
      s->rank = pesc_int_(value, s->rank);
      if (getenv("PESC_SEED") == NULL) s->seed = pesc_seed_of_(0, s->rank);
      break;
    case 4:
      s->world_size = pesc_int_(value, s->world_size);
      break;
    case 5:
      s->master_addr = value;
      break;
    case 6:
      s->master_port = pesc_int_(value, s->master_port);
      break;
    default:
      break;
  }
}

/* Started by PESC, the environment has the truth and PESC's arguments are the last ones: where they
 * begin. So a program's own -r or --rank is never taken for PESC's. */
PESC_INLINE_ int pesc_block_(int argc, char** argv) {
  int i;
  const char* app_dir = getenv("PESC_APP_DIR");
  for (i = argc - 14; i >= 1 && app_dir != NULL; --i) {
    if (strcmp(argv[i], "--app_dir") == 0 && strcmp(argv[i + 1], app_dir) == 0 &&
        strcmp(argv[i + 2], "--checkpoint_dir") == 0 &&
        strcmp(argv[i + 12], "--master_port") == 0) {
      return i;
    }
  }
  return argc;
}

PESC_INLINE_ int pesc_read_args_(int argc, char** argv, int short_too, int remove) {
  int from, to = 1;
  pesc_ready_();
  if (!pesc_the_state_.alone) {
    const int block = pesc_block_(argc, argv);
    if (block + 15 < argc && strcmp(argv[block + 14], "--parameters") == 0) {
      pesc_set_parameters_(argc - block - 15, argv + block + 15);
    }
    return remove ? block : argc;
  }
  for (from = 1; from < argc; ++from) {
    const char* value;
    const int flag = pesc_flag_(argv[from], short_too, &value);
    if (strcmp(argv[from], "--") == 0) { /* the rest is the program's own, whatever it looks like */
      while (remove && from < argc) argv[to++] = argv[from++];
      break;
    }
    if (flag == 7) { /* --parameters takes all that follow; --parameters=x only x */
      pesc_set_parameters_(argc - from - 1, argv + from + 1);
      if (value != NULL) pesc_the_state_.parameter_count = 0;
      break;
    }
    if (flag < 0 || (value == NULL && from + 1 >= argc)) {
      if (remove) argv[to] = argv[from];
      ++to;
      continue;
    }
    pesc_set_(flag, value != NULL ? value : argv[++from]);
  }
  return remove ? to : argc;
}

/* Reads PESC's arguments, long or short (-r 3), and leaves them where they are; tolerates all
 * others. Keep argv as it is afterwards. */
PESC_INLINE_ void pesc_parse_args(int argc, char** argv) {
  (void)pesc_read_args_(argc, argv, 1, 0);
}

/* Reads PESC's long arguments and removes them, so that the program's own parser never meets them.
 * Short flags stay: they may be the program's own. */
PESC_INLINE_ void pesc_take_args(int* argc, char** argv) {
  *argc = pesc_read_args_(*argc, argv, 0, 1);
  argv[*argc] = NULL;
}

/* ---- events ---------------------------------------------------------------------------------- */

/* Writes all of it; -1 with errno. */
PESC_INLINE_ int pesc_write_(int fd, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd, bytes, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return -1;
    bytes += written;
    size -= (size_t)written;
  }
  return 0;
}

PESC_INLINE_ int pesc_event_(const char* line) {
  int fd, result;
  pesc_ready_();
  if (pesc_the_state_.events == NULL) return 0; /* alone: nobody listens */
  fd = open(pesc_the_state_.events, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return -1;
  result = pesc_write_(fd, line, strlen(line)); /* in one write: lines of threads never mix */
  return close(fd) != 0 ? -1 : result;
}

/* A number as every reader understands it, whatever the locale. */
PESC_INLINE_ void pesc_number_(char* out, size_t size, double value) {
  (void)snprintf(out, size, "%.17g", value);
  for (; *out != '\0'; ++out) {
    if (*out == ',') *out = '.';
  }
}

PESC_INLINE_ void pesc_one_line_(char* text, int spaces_too) {
  for (; *text != '\0'; ++text) {
    if ((unsigned char)*text < 0x20 || (spaces_too && *text == ' ')) *text = spaces_too ? '_' : ' ';
  }
}

/* How far the rank is, 0 to 1, and what it does now (or NULL). Cheap to call often: less than a
 * thousandth of progress with the same text is not written. */
PESC_INLINE_ int pesc_progress(double fraction, const char* text) {
  struct pesc_state_* s = &pesc_the_state_;
  char line[400], number[40], shown[257];
  unsigned long hash = 5381;
  const char* c;
  if (isnan(fraction)) return errno = EINVAL, -1;
  pesc_ready_();
  if (s->events == NULL) return 0;
  if (text == NULL) text = "";
  for (c = text; *c != '\0'; ++c) hash = hash * 33 + (unsigned char)*c;
  if (hash == s->last_text && fraction < 1 && fraction >= s->last_fraction &&
      fraction - s->last_fraction < 1e-3) {
    return 0;
  }
  s->last_text = hash;
  s->last_fraction = fraction;
  fraction = fraction < 0 ? 0 : fraction > 1 ? 1 : fraction;
  pesc_number_(number, sizeof number, fraction);
  (void)snprintf(shown, sizeof shown, "%.256s", text);
  pesc_one_line_(shown, 0);
  (void)snprintf(line, sizeof line, "progress %s%s%s\n", number, shown[0] != '\0' ? " " : "",
                 shown);
  return pesc_event_(line);
}

/* A number worth seeing while the job runs, e.g. ("loss", 0.25). */
PESC_INLINE_ int pesc_metric(const char* name, double value) {
  char line[256], number[40], shown[129];
  if (name == NULL || name[0] == '\0' || isnan(value) || isinf(value)) return errno = EINVAL, -1;
  pesc_number_(number, sizeof number, value);
  (void)snprintf(shown, sizeof shown, "%.128s", name);
  pesc_one_line_(shown, 1);
  (void)snprintf(line, sizeof line, "metric %s %s\n", shown, number);
  return pesc_event_(line);
}

/* checkpoint_dir is complete now: PESC may save it. */
PESC_INLINE_ int pesc_checkpoint_done(void) { return pesc_event_("checkpoint\n"); }

/* ---- checkpoints ----------------------------------------------------------------------------- */

PESC_INLINE_ int pesc_checkpoint_path_(char* out, size_t size, const char* name, const char* end) {
  const int length = snprintf(out, size, "%s/%s%s", pesc_checkpoint_dir(), name, end);
  if (length > 0 && (size_t)length < size) return 0;
  return errno = ENAMETOOLONG, -1;
}

PESC_INLINE_ int pesc_sync_directory_(const char* directory) {
  const int fd = open(directory, O_RDONLY | O_CLOEXEC);
  int result;
  if (fd < 0) return -1;
  result = fsync(fd);
  (void)close(fd);
  return result;
}

/* Saves bytes as checkpoint_dir/name, whole or not at all, and tells PESC. */
PESC_INLINE_ int pesc_save_checkpoint(const char* name, const void* data, size_t size) {
  char path[4096], temporary[4096];
  int fd, failed;
  if (pesc_checkpoint_path_(path, sizeof path, name, "") != 0 ||
      pesc_checkpoint_path_(temporary, sizeof temporary, name, ".tmp") != 0) {
    return -1;
  }
  fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return -1;
  failed = pesc_write_(fd, (const char*)data, size) != 0 || fsync(fd) != 0;
  failed = close(fd) != 0 || failed;
  if (failed || rename(temporary, path) != 0) {
    const int error = errno;
    (void)unlink(temporary);
    return errno = error, -1;
  }
  if (pesc_sync_directory_(pesc_checkpoint_dir()) != 0) return -1;
  return pesc_checkpoint_done();
}

/* The bytes that were saved under that name, for free(); NULL with errno ENOENT when there are
 * none: a fresh start. A zero byte follows them, which *size does not count. */
PESC_INLINE_ void* pesc_load_checkpoint(const char* name, size_t* size) {
  char path[4096];
  struct stat status;
  char* bytes;
  size_t have = 0;
  int fd;
  *size = 0;
  if (pesc_checkpoint_path_(path, sizeof path, name, "") != 0) return NULL;
  fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return NULL;
  if (fstat(fd, &status) != 0) return (void)close(fd), (void*)NULL;
  bytes = (char*)malloc((size_t)status.st_size + 1);
  while (bytes != NULL && have < (size_t)status.st_size) {
    const ssize_t got = read(fd, bytes + have, (size_t)status.st_size - have);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      const int error = got < 0 ? errno : EIO;
      free(bytes);
      (void)close(fd);
      return errno = error, (void*)NULL;
    }
    have += (size_t)got;
  }
  (void)close(fd);
  if (bytes != NULL) bytes[have] = '\0';
  *size = bytes != NULL ? have : 0;
  return bytes;
}

/* ---- C++ ------------------------------------------------------------------------------------- */

#ifdef __cplusplus
namespace pesc {

/* The contract as a value: const auto rank = pesc::RankContext::from(argc, argv); */
struct RankContext {
  int rank = pesc_rank();
  int world_size = pesc_world_size();
  std::uint64_t seed = pesc_seed();
  int attempt = pesc_attempt();
  std::string app_dir = pesc_app_dir();
  std::string checkpoint_dir = pesc_checkpoint_dir();
  std::string output_dir = pesc_output_dir();
  std::string master_addr = pesc_master_addr();
  int master_port = pesc_master_port();
  std::vector<std::string> parameters = all_parameters();

  /* Takes PESC's arguments out of the program's; a RankContext made without it reads only the
   * environment. */
  static RankContext from(int& argc, char** argv) {
    pesc_take_args(&argc, argv);
    return RankContext();
  }

  std::string output_path(const std::string& name) const { return output_dir + "/" + name; }
  std::string checkpoint_path(const std::string& name) const { return checkpoint_dir + "/" + name; }

  /* These return whether it worked; errno says why not. */
  bool progress(double fraction, const std::string& text = std::string()) const {
    return pesc_progress(fraction, text.c_str()) == 0;
  }
  bool metric(const std::string& name, double value) const {
    return pesc_metric(name.c_str(), value) == 0;
  }
  bool checkpoint_done() const { return pesc_checkpoint_done() == 0; }
  bool save_checkpoint(const std::string& name, const std::string& bytes) const {
    return pesc_save_checkpoint(name.c_str(), bytes.data(), bytes.size()) == 0;
  }
  /* False, and `bytes` as it was, when nothing was saved under that name. */
  bool load_checkpoint(const std::string& name, std::string& bytes) const {
    std::size_t size = 0;
    void* const loaded = pesc_load_checkpoint(name.c_str(), &size);
    if (loaded == nullptr) return false;
    bytes.assign(static_cast<const char*>(loaded), size);
    free(loaded);
    return true;
  }

 private:
  static std::vector<std::string> all_parameters() {
    std::vector<std::string> values;
    for (int i = 0; i < pesc_parameter_count(); ++i) values.emplace_back(pesc_parameter(i));
    return values;
  }
};

}  // namespace pesc
#endif

#undef PESC_INLINE_

#endif /* PESC_RANK_H_ */
