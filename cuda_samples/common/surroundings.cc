#include "common/surroundings.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/failure.h"
#include "common/stop.h"
#include "pesc/rank.h"

namespace samples {
namespace {

double seconds_now() {
  using Seconds = std::chrono::duration<double>;
  return Seconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void save_checkpoint(const char* program, const char* name, const std::string& bytes) {
  if (pesc_save_checkpoint(name, bytes.data(), bytes.size()) == 0) return;
  std::fprintf(stderr, "%s: no checkpoint was saved in %s: %s; the one before, if any, stays\n",
               program, pesc_checkpoint_dir(), std::strerror(errno));
}

bool load_checkpoint(const char* program, const char* name, std::string& bytes) {
  std::size_t size = 0;
  errno = 0;
  void* const loaded = pesc_load_checkpoint(name, &size);
  if (loaded == nullptr) {
    if (errno != ENOENT) {
      std::fprintf(stderr, "%s: the checkpoint in %s cannot be read: %s\n", program,
                   pesc_checkpoint_dir(), std::strerror(errno));
    }
    return false;
  }
  bytes.assign(static_cast<const char*>(loaded), size);
  std::free(loaded);
  return true;
}

}  // namespace

Surroundings real_surroundings(const char* program, const char* checkpoint, const char* doing) {
  Surroundings out;
  out.seconds = seconds_now;
  out.stop_requested = stop_requested;
  out.progress = [=](double fraction) { (void)pesc_progress(fraction, doing); };
  out.save = [=](const std::string& bytes) { save_checkpoint(program, checkpoint, bytes); };
  out.load = [=](std::string& bytes) { return load_checkpoint(program, checkpoint, bytes); };
  out.say = [=](const std::string& line) {
    std::fprintf(stderr, "%s: %s\n", program, line.c_str());
  };
  return out;
}

std::string output_directory() {
  const std::string directory = pesc_output_dir();
  if (access(directory.c_str(), W_OK | X_OK) != 0) {
    throw Failure(kFailed, "the output directory " + directory +
                               " cannot be written to: " + std::strerror(errno));
  }
  return directory;
}

void forget_checkpoint(const char* checkpoint) {
  (void)unlink((std::string(pesc_checkpoint_dir()) + "/" + checkpoint).c_str());
}

}  // namespace samples
