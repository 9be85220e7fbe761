// Directory trees that are not trusted: every step is made from an open directory and never follows
// a symbolic link.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "blob/files.h"

namespace pesc::blob {

enum class NodeKind : uint8_t { file, directory, link, other };

struct Node {
  std::string name;  // within its directory
  NodeKind kind = NodeKind::other;
};

// Sorted by name.
absl::StatusOr<std::vector<Node>> list_directory(int fd, const std::filesystem::path& path);

// Opens root/relative; no component may be a symbolic link.
absl::StatusOr<Fd> open_beneath(int root, std::string_view relative, int flags,
                                const std::filesystem::path& root_path);

// Whether a symbolic link whose directory lies `depth` levels below the root leads inside, given
// that every other link does: relative, and ".." only at its beginning and no further than the
// root. (A ".." behind a name could come after another link, and lead anywhere.)
bool link_stays_inside(std::string_view target, size_t depth);

// The number of directories above `name`: 0 for "a", 2 for "a/b/c".
size_t depth_of(std::string_view name);

// For messages: quoted, with control characters, and all that is not UTF-8, as \xNN.
std::string printable(std::string_view name);

}  // namespace pesc::blob
