// Which workers have large blobs, or are being given them, and from whom each gets its own: a tree
// for each blob, with the coordinator at the root. Known from this run of the sessions only, and
// never relied upon: whoever is sent to a worker in vain comes back. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "model/ids.h"

namespace pesc::coordinator {

class Holders {
 public:
  static constexpr uint32_t kFewReaders = 2;   // of one holder, while others have fewer
  static constexpr uint32_t kMostReaders = 8;  // of one holder at all
  static constexpr size_t kMostBlobs = 1'024;  // that are remembered of one session
  static constexpr size_t kMostTried = 64;     // before the coordinator is the quicker choice

  // `session` is about to fetch the blob: from which one? Nothing: from the coordinator. Never from
  // one that gets its own from `session`, directly or not. `passes_on`: others may be sent to it.
  std::optional<uint64_t> choose(const Digest& digest, uint64_t session, bool passes_on,
                                 const std::function<bool(uint64_t holder)>& usable);
  // It has all of it now, or will not get it.
  void ended(const Digest& digest, uint64_t session, bool here, bool passes_on);
  // A session is over, or a holder turned out to lack the blob.
  void forget(uint64_t session);
  void forget(const Digest& digest, uint64_t session);

  // Who `session` was sent to; 0: the coordinator.
  uint64_t source_of(const Digest& digest, uint64_t session) const;

  size_t blobs() const { return blobs_.size(); }
  size_t sessions() const { return sessions_.size(); }

 private:
  // Those with few readers first, then those close to the root, for a chain is as slow as the
  // slowest in it.
  using Order = std::tuple<bool, uint32_t, uint32_t, uint64_t>;
  struct Node {
    bool fetching = true, passes_on = false;
    uint64_t from = 0;  // while fetching; 0: the coordinator
    uint32_t depth = 1, readers = 0;
    Order order(uint64_t session) const {
      return {readers >= kFewReaders, depth, readers, session};
    }
  };
  struct Blob {
    std::map<uint64_t, Node> nodes;
    std::set<Order> offered;  // those that pass on
  };

  Node& node_of(const Digest& digest, uint64_t session, bool passes_on);
  static bool gets_from(const Blob& blob, uint64_t session, uint64_t from);
  static void change(Blob& blob, uint64_t session, const std::function<void(Node&)>& change);
  static void leave(Blob& blob, uint64_t session);

  std::map<Digest, Blob> blobs_;
  std::map<uint64_t, std::deque<Digest>> sessions_;  // oldest first
};

}  // namespace pesc::coordinator
