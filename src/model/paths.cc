#include <algorithm>

#include "model/job_spec.h"
#include "model/text.h"

namespace pesc {
namespace {
constexpr size_t kMaxPathBytes = 4096;
constexpr size_t kMaxComponentBytes = 255;

absl::Status bad_path(std::string_view path, std::string_view what) {
  return absl::InvalidArgumentError("path " + in_quotes(path) + " " + std::string(what));
}
}  // namespace

absl::StatusOr<std::string> normalise_relative_path(std::string_view path) {
  if (path.empty()) return absl::InvalidArgumentError("a path is empty: name a file");
  if (path.size() > kMaxPathBytes) {
    return bad_path(path, "is longer than 4096 bytes: use a shorter one");
  }
  if (path.find('\0') != std::string_view::npos) {
    return bad_path(path, "contains a NUL byte: rename the file");
  }
  if (path.front() == '/') {
    return bad_path(path, "is absolute: give it relative to the directory it belongs in");
  }
  std::string normal;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    const std::string_view component = path.substr(0, end);
    if (component == "..") {
      return bad_path(path, "contains '..': give a path that stays below its directory");
    }
    if (component.size() > kMaxComponentBytes) {
      return bad_path(component, "is a name of more than 255 bytes: use a shorter one");
    }
    if (!component.empty() && component != ".") {
      if (!normal.empty()) normal += '/';
      normal += component;
    }
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  if (normal.empty()) {
    return absl::InvalidArgumentError("the path '.' names no file: name one below the directory");
  }
  return normal;
}

}  // namespace pesc
