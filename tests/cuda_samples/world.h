// A world in which each look at the clock takes a second, and a stop comes after so many looks.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/surroundings.h"

namespace samples {

struct World {
  std::optional<std::string> checkpoint;
  int saves = 0, stop_after = -1, asked = 0;
  double now = 0;
  std::vector<double> progress;
  std::vector<std::string> said;

  Surroundings around() {
    Surroundings out;
    out.seconds = [this] { return now += 1; };
    out.stop_requested = [this] { return stop_after >= 0 && asked++ >= stop_after; };
    out.progress = [this](double fraction) { progress.push_back(fraction); };
    out.save = [this](const std::string& bytes) {
      checkpoint = bytes;
      ++saves;
    };
    out.load = [this](std::string& bytes) {
      if (checkpoint) bytes = *checkpoint;
      return checkpoint.has_value();
    };
    out.say = [this](const std::string& line) { said.push_back(line); };
    return out;
  }
};

}  // namespace samples
