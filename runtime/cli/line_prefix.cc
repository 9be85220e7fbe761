#include "runtime/cli/line_prefix.h"

#include <algorithm>
#include <utility>

namespace pesc::cli {

std::string LinePrefix::add(uint32_t rank, std::string_view bytes) {
  if (bytes.empty()) return "";
  std::string out = rank == rank_ ? "" : end();
  rank_ = rank;
  const std::string prefix = "[" + std::to_string(rank) + "] ";
  out.reserve(bytes.size() + bytes.size() / 4 + prefix.size());
  while (!bytes.empty()) {
    const bool ends = returned_ && bytes.front() == '\n';  // "\r\n"
    if (line_begins_ && !ends) out += prefix;
    const size_t end = std::min(bytes.find_first_of("\r\n"), bytes.size() - 1) + 1;
    returned_ = bytes[end - 1] == '\r';
    line_begins_ = returned_ || bytes[end - 1] == '\n';
    out += bytes.substr(0, end);
    bytes.remove_prefix(end);
  }
  return out;
}

std::string LinePrefix::end() {
  const bool ended = std::exchange(line_begins_, true) && !returned_;
  returned_ = false;
  return ended ? "" : "\n";
}

}  // namespace pesc::cli
