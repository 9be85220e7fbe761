// What `run` keeps about an embedded job, beside the results, in DIR/.pesc: its id, the cluster's
// state, and how long it did not run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace pesc::cli {

class RunDirectory {
 public:
  explicit RunDirectory(const std::string& output) : output_(output) {}
  std::filesystem::path state() const { return output_ / ".pesc" / "state"; }

  std::string job_id() const { return read("job"); }
  bool can_be_resumed() const { return !job_id().empty() && std::filesystem::exists(state()); }
  // A digest of the job's description: to resume is to go on with this very job.
  void describe(const std::string& digest) const { write("spec", digest); }
  std::string described() const { return read("spec"); }
  // What is complete needs no state to go on from.
  void complete(const std::string& digest) const;
  std::string completed() const { return read("complete"); }
  // Nothing was submitted: the directory is as free as before.
  void unclaim() const;

  // The run is about to go on: adds the time since the last sign of life of the one before, a
  // change in its state, and returns the sum of all such pauses.
  uint64_t add_pause(int64_t now_unix_ms) const;

 private:
  int64_t last_sign_of_life_unix_ms() const;  // 0: none
  std::string read(const char* name) const;
  void write(const char* name, const std::string& word) const;
  std::filesystem::path output_;
};

}  // namespace pesc::cli
