// The tables of the journal, version by version.
#pragma once

#include <filesystem>

#include "absl/status/statusor.h"
#include "runtime/coordinator/shell/sqlite.h"

namespace pesc::coordinator {

// FailedPrecondition when the database is not a journal, or one of a version that is not known.
// Returns its version; 0: it is empty.
absl::StatusOr<int> journal_version(Database& db, const std::filesystem::path& path);

// From that version to the present one, in one transaction.
absl::Status migrate_journal(Database& db, int from_version);

}  // namespace pesc::coordinator
