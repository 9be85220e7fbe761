// The coordinator's store of blobs, as the simulator has it: what was put is durable.
#pragma once

#include <map>
#include <string>

#include "model/ids.h"

namespace pesc::sim {

class Blobs {
 public:
  void put(const BlobRef& blob, std::string bytes) { blobs_[blob.digest] = std::move(bytes); }
  const std::string* find(const BlobRef& blob) const {
    auto it = blobs_.find(blob.digest);
    return it == blobs_.end() ? nullptr : &it->second;
  }
  void remove(const BlobRef& blob) { blobs_.erase(blob.digest); }
  bool full = false;  // takes nothing at present

 private:
  std::map<Digest, std::string> blobs_;
};

}  // namespace pesc::sim
