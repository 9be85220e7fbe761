// Why a program could not be started, in words that a user understands.
#pragma once

#include <string>
#include <vector>

#include "runtime/worker/keeper/shim.h"

namespace pesc::keeper {

struct StartFailure {
  int exit_code = 127;  // as a shell counts: 127 not found, 126 found but not executable
  std::string detail;
};

StartFailure explain(Stage stage, int error, const std::string& program,
                     const std::vector<std::string>& candidates,
                     const std::string& working_directory, const std::string& search_path);

}  // namespace pesc::keeper
