// Sends workers that need a large blob to others that have it, or are being given it. Tells the one
// that has it a ticket, which it then wants to see, and the other where to bring it: no worker gets
// credentials for another.
#pragma once

#include <kj/async.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "model/ids.h"
#include "rpc/loop.h"
#include "runtime/coordinator/shell/holders.h"

namespace pesc::coordinator {

struct HolderOffer {
  uint64_t worker = 0;  // its id
  std::string address;
  uint16_t port = 0;
  std::string certificate_pem;  // empty: no TLS
  std::string ticket;
};

// A worker's session, as somebody who may pass a blob on.
class BlobHolder {
 public:
  struct About {
    uint64_t worker = 0;
    std::string address;  // where others reach it
    bool passes_on = false;
    bool on_this_machine = false;  // it has connected over loopback
  };
  virtual ~BlobHolder() = default;
  virtual const About& about() const = 0;
  virtual kj::Promise<HolderOffer> pass_on(const BlobRef& blob, const std::string& ticket) = 0;
};

class Passing {
 public:
  // The question shares a connection with blobs that are being read. As many as are asked must fit
  // within the half minute that the worker waits.
  static constexpr uint64_t kAnswerWithinMs = 8'000;
  static constexpr size_t kMostAsked = 3;  // until the coordinator itself is the answer
  // Of as many workers, with nobody served in between: it is not named any more.
  static constexpr size_t kMostComplaints = 3;

  // `holder`: null when the session is over.
  Passing(rpc::Loop& loop, std::function<BlobHolder*(uint64_t session)> holder)
      : loop_(loop), holder_(std::move(holder)) {}

  // Nothing: the blob is to be read from the coordinator. `without`: ids of workers that the asking
  // one will not be sent to, 0 for all; `failed`: the one that it was sent to in vain, or 0.
  kj::Promise<std::optional<HolderOffer>> find(uint64_t session, const BlobRef& blob,
                                               std::set<uint64_t> without, uint64_t failed);
  void fetched(uint64_t session, const Digest& digest, bool here);
  void closed(uint64_t session);

 private:
  kj::Promise<std::optional<HolderOffer>> ask(uint64_t session, const BlobRef& blob,
                                              std::set<uint64_t> without, size_t asked);
  bool usable(const BlobHolder::About& asking, uint64_t holder,
              const std::set<uint64_t>& without) const;

  rpc::Loop& loop_;
  const std::function<BlobHolder*(uint64_t session)> holder_;
  Holders holders_;
  std::map<uint64_t, std::set<uint64_t>> complaints_;  // about a session: those who complained
  std::set<uint64_t> failing_;                         // sessions that could not pass on
};

}  // namespace pesc::coordinator
