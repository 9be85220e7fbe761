#include "runtime/cli/run_directory.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace pesc::cli {

namespace fs = std::filesystem;

void RunDirectory::complete(const std::string& digest) const {
  write("complete", digest);
  std::error_code ignored;
  fs::remove_all(state(), ignored);
}

void RunDirectory::unclaim() const {
  std::error_code ignored;
  fs::remove_all(output_ / ".pesc", ignored);
  fs::remove(output_, ignored);  // when it is empty
}

uint64_t RunDirectory::add_pause(int64_t now_unix_ms) const {
  uint64_t paused_ms = strtoull(read("paused_ms").c_str(), nullptr, 10);
  int64_t last = last_sign_of_life_unix_ms();
  if (last != 0) paused_ms += std::max<int64_t>(0, now_unix_ms - last);
  write("paused_ms", std::to_string(paused_ms));
  return paused_ms;
}

// The journal is written with each rank that ends, the attempts' directories by the ranks: the
// latest of all that is there is at most a rank's silence before the end.
int64_t RunDirectory::last_sign_of_life_unix_ms() const {
  int64_t last = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(state(), error), end; !error && it != end;
       it.increment(error)) {
    struct stat info {};
    if (lstat(it->path().c_str(), &info) != 0) continue;
    last = std::max<int64_t>(last, info.st_mtim.tv_sec * 1000 + info.st_mtim.tv_nsec / 1'000'000);
  }
  return last;
}

std::string RunDirectory::read(const char* name) const {
  std::ifstream in(output_ / ".pesc" / name);
  std::string word;
  in >> word;
  return word;
}

void RunDirectory::write(const char* name, const std::string& word) const {
  std::ofstream(output_ / ".pesc" / name) << word << '\n';
}

}  // namespace pesc::cli
