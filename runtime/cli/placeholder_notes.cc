#include "runtime/cli/placeholder_notes.h"

#include <algorithm>
#include <string_view>

#include "model/placeholders.h"
#include "runtime/cli/suggest.h"

namespace pesc::cli {
namespace {

const std::vector<std::string>& known() {
  static const std::vector<std::string> names = {"rank",           "world_size",  "app_dir",
                                                 "checkpoint_dir", "output_dir",  "seed",
                                                 "master_addr",    "master_port", "parameters"};
  return names;
}

// The placeholder that `name` may have been meant to be, or nothing.
std::string meant(const std::string& name) {
  size_t bracket = name.find('[');
  std::string head = name.substr(0, bracket);
  std::optional<std::string> near = nearest(head, known());
  if (!near && std::find(known().begin(), known().end(), head) != known().end()) near = head;
  if (!near) return "";
  if (*near != "parameters") return *near;
  bool indexed = bracket != name.npos && name.back() == ']';
  return "parameters" + (indexed ? name.substr(bracket) : std::string("[rank]"));
}

}  // namespace

std::vector<std::string> placeholder_notes(const std::vector<std::string>& arguments) {
  std::vector<std::string> names, notes;
  for (const std::string& argument : arguments) {
    scan_placeholders(
        argument, [](std::string_view) {},
        [&](std::string_view name) {
          if (is_placeholder(name) || parameter_index(name) || name == kParameterOfRank)
            return true;
          if (std::find(names.begin(), names.end(), name) == names.end()) names.emplace_back(name);
          return false;
        });
  }
  for (const std::string& name : names) {
    std::string other = meant(name);
    if (other.empty() || other == name) continue;
    notes.push_back("'{" + name + "}'" +
                    " is no placeholder of PESC's and is passed as it is (did you mean '{" + other +
                    "}'?)");
  }
  return notes;
}

}  // namespace pesc::cli
