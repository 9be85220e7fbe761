// What a worker is told about its owner.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/worker/owner/policy.h"

namespace pesc::worker::owner {

struct Settings {
  Config policy;
  // Where /proc, /run and /dev are looked for: another than "/" in a container that has the host's
  // elsewhere.
  std::filesystem::path root = "/";
  // Exit code 0: somebody is here, 1: nobody is; run as the worker's user, without a shell.
  std::vector<std::string> presence_command;
  uint64_t presence_every_ms = 5'000;
  // As long as it exists ranks are frozen, and no more are taken. Only looked for, never opened.
  // Empty: `pause` in the state directory.
  std::filesystem::path pause_file;
};

// Makes or removes the file, for `pesc-worker --pause` and `--resume`.
absl::Status set_pause_file(const std::filesystem::path& file, bool paused);

}  // namespace pesc::worker::owner
