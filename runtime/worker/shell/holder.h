// Another worker that passes a blob on, as one that needs it sees it.
#pragma once

#include <kj/async.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "model/ids.h"
#include "pesc.capnp.h"
#include "rpc/connection.h"

namespace pesc::worker {

struct Holder {
  uint64_t worker = 0;  // its id
  std::string address;
  uint16_t port = 0;
  std::string certificate_pem;  // empty: none, on this machine
  std::string ticket;
};

// Who knows them: the coordinator, by the worker's session.
class HolderFinder {
 public:
  virtual ~HolderFinder() = default;
  // Nothing: the coordinator is to be read from. Never fails. `without` 0: it will be, whatever the
  // answer; the coordinator is only told so, and what `failed`.
  virtual kj::Promise<std::optional<Holder>> find_holder(const BlobRef& blob,
                                                         const std::set<uint64_t>& without,
                                                         uint64_t failed) = 0;
  virtual void fetched(const Digest& digest, bool here) = 0;
};

// A connection to one of them. Dropped, it ends.
class HolderConnection {
 public:
  // Fails with whatever connect() fails with, and with Unavailable when nothing is said in time.
  static kj::Promise<kj::Own<HolderConnection>> open(rpc::Loop& loop, const Holder& holder,
                                                     uint64_t timeout_ms);
  ~HolderConnection() noexcept;
  uint64_t worker() const { return worker_; }
  kj::Promise<std::string> read(uint64_t offset, uint32_t bytes);

 private:
  uint64_t worker_ = 0;
  std::unique_ptr<rpc::Connection> connection_;
  kj::Maybe<protocol::PassedBlob::Client> blob_;
};

}  // namespace pesc::worker
