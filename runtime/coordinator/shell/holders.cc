#include "runtime/coordinator/shell/holders.h"

#include <algorithm>

namespace pesc::coordinator {

Holders::Node& Holders::node_of(const Digest& digest, uint64_t session, bool passes_on) {
  std::deque<Digest>& known = sessions_[session];
  Blob& blob = blobs_[digest];
  auto [it, added] = blob.nodes.try_emplace(session);
  if (!added) return it->second;
  it->second.passes_on = passes_on;
  if (passes_on) blob.offered.insert(it->second.order(session));
  known.push_back(digest);
  if (known.size() > kMostBlobs) {
    const Digest oldest = known.front();
    forget(oldest, session);
  }
  return it->second;
}

void Holders::change(Blob& blob, uint64_t session, const std::function<void(Node&)>& change) {
  const auto found = blob.nodes.find(session);
  if (found == blob.nodes.end()) return;
  Node& node = found->second;
  if (node.passes_on) blob.offered.erase(node.order(session));
  change(node);
  if (node.passes_on) blob.offered.insert(node.order(session));
}

// It reads from nobody any more.
void Holders::leave(Blob& blob, uint64_t session) {
  const auto found = blob.nodes.find(session);
  if (found == blob.nodes.end()) return;
  const uint64_t from = found->second.from;
  found->second.from = 0;
  if (from == 0) return;
  change(blob, from, [](Node& node) {
    if (node.readers > 0) --node.readers;
  });
}

bool Holders::gets_from(const Blob& blob, uint64_t session, uint64_t from) {
  // As many steps as there are nodes, should a link be older than what it points to.
  for (size_t steps = 0; session != 0 && steps <= blob.nodes.size(); ++steps) {
    if (session == from) return true;
    const auto found = blob.nodes.find(session);
    session = found == blob.nodes.end() || !found->second.fetching ? 0 : found->second.from;
  }
  return false;
}

std::optional<uint64_t> Holders::choose(const Digest& digest, uint64_t session, bool passes_on,
                                        const std::function<bool(uint64_t holder)>& usable) {
  node_of(digest, session, passes_on);
  Blob& blob = blobs_[digest];
  leave(blob, session);
  uint64_t from = 0;
  size_t tried = 0;
  for (const Order& order : blob.offered) {
    if (++tried > kMostTried) break;
    const uint64_t holder = std::get<3>(order);
    if (holder == session || std::get<2>(order) >= kMostReaders) continue;
    if (gets_from(blob, holder, session) || !usable(holder)) continue;
    from = holder;
    break;
  }
  uint32_t depth = 1;
  if (from != 0) {
    change(blob, from, [&](Node& node) {
      ++node.readers;
      depth = node.depth + 1;
    });
  }
  change(blob, session, [&](Node& node) {
    node.fetching = true;
    node.from = from;
    node.depth = depth;
  });
  if (from == 0) return std::nullopt;
  return from;
}

void Holders::ended(const Digest& digest, uint64_t session, bool here, bool passes_on) {
  if (!here) return forget(digest, session);
  node_of(digest, session, passes_on);
  Blob& blob = blobs_[digest];
  leave(blob, session);
  change(blob, session, [](Node& node) {
    node.fetching = false;
    node.depth = 0;
  });
}

uint64_t Holders::source_of(const Digest& digest, uint64_t session) const {
  const auto blob = blobs_.find(digest);
  if (blob == blobs_.end()) return 0;
  const auto node = blob->second.nodes.find(session);
  return node == blob->second.nodes.end() ? 0 : node->second.from;
}

void Holders::forget(const Digest& digest, uint64_t session) {
  const auto found = blobs_.find(digest);
  if (found == blobs_.end()) return;
  Blob& blob = found->second;
  leave(blob, session);
  const auto node = blob.nodes.find(session);
  if (node == blob.nodes.end()) return;
  if (node->second.passes_on) blob.offered.erase(node->second.order(session));
  blob.nodes.erase(node);
  if (blob.nodes.empty()) blobs_.erase(found);
  const auto known = sessions_.find(session);
  if (known == sessions_.end()) return;
  std::erase(known->second, digest);
  if (known->second.empty()) sessions_.erase(known);
}

void Holders::forget(uint64_t session) {
  const auto known = sessions_.find(session);
  if (known == sessions_.end()) return;
  for (const Digest& digest : std::deque<Digest>(known->second)) forget(digest, session);
}

}  // namespace pesc::coordinator
