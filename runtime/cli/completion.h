// Shell completion, made from the very flags that the program parses.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

namespace pesc::cli {

// shell: "bash" or "zsh"; nothing for another.
std::optional<std::string> completion_script(const CLI::App& app, const std::string& shell);

}  // namespace pesc::cli
