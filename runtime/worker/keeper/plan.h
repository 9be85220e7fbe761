// A launch plan with the memory it points into.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "keeper.capnp.h"
#include "runtime/worker/containment/group.h"
#include "runtime/worker/keeper/shim.h"

namespace pesc::keeper {

class OwnedPlan {
 public:
  // Copies what the plan needs out of the message. Empty on success, else why it is refused.
  std::string fill(protocol::keeper::Start::Reader start);

  // Into this cgroup (null: none); it must outlive the plan.
  void enter(const containment::Group* group);
  void bind_to(const std::vector<int>& cores);  // empty: all

  LaunchPlan plan;

  // For the explanation of a failed start.
  std::string program() const { return argv_.empty() ? std::string() : argv_.front(); }
  std::vector<std::string> candidates() const;
  const std::string& search_path() const { return search_path_; }

 private:
  char* put(const void* data, size_t size);
  char* put(capnp::Data::Reader data) { return put(data.begin(), data.size()); }
  std::string fill_program(protocol::keeper::Start::Reader start);
  void fill_candidates();
  void fill_binds(protocol::keeper::Start::Reader start);

  std::vector<std::unique_ptr<char[]>> blocks_;
  char* free_ = nullptr;
  size_t free_bytes_ = 0;
  std::vector<char*> argv_, environment_;
  std::vector<const char*> candidates_;
  std::vector<BindMount> binds_;
  std::vector<const char*> tasks_;
  std::vector<unsigned long> cores_;
  std::string search_path_;
};

}  // namespace pesc::keeper
