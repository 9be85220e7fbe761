// Small files that hold secrets: mode 0600, replaced as a whole, refused when others can read them.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pesc::rpc {

// Durable when it returns; makes missing folders with mode 0700.
absl::Status write_private_file(const std::filesystem::path& path, std::string_view content);

// NotFound, FailedPrecondition (others can read it; says `chmod 600 FILE`), InvalidArgument (no
// regular file, or larger than any of ours), PermissionDenied.
absl::StatusOr<std::string> read_private_file(const std::filesystem::path& path);

// The same without the demand for privacy.
absl::StatusOr<std::string> read_small_file(const std::filesystem::path& path);

}  // namespace pesc::rpc
