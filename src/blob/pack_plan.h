// What goes into a pack, decided before the first byte is written.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "blob/files.h"
#include "blob/pack.h"
#include "blob/tree.h"

namespace pesc::blob {

struct PlannedEntry {
  std::string name;
  NodeKind kind = NodeKind::file;
  int root = -1;                     // the open directory that `name` is relative to; -1: `extra`
  const ExtraFile* extra = nullptr;  // of the request
  std::string link_target;
};

struct PackPlan {
  Fd output, collect;
  std::vector<PlannedEntry> entries;
  std::vector<std::string> uncollected;
};

absl::StatusOr<PackPlan> plan_pack(const PackRequest& request);

}  // namespace pesc::blob
