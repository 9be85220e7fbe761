// Gives large blobs on to other workers, so that the coordinator sends each only once or twice:
// those that are in the cache, and those that are still on their way here. Listens only while
// somebody may come, and knows nobody but by the tickets that the coordinator has announced. On the
// loop's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/ids.h"
#include "rpc/loop.h"
#include "runtime/worker/shell/cache.h"

namespace pesc::worker {

inline constexpr size_t kTicketBytes = 32;

class PassOn {
 public:
  struct Settings {
    uint64_t ticket_ms = 30'000;  // a ticket that nobody brings is void after this
    uint64_t idle_ms = 60'000;    // one that reads nothing for this is given nothing any more
  };
  PassOn(rpc::Loop& loop, std::shared_ptr<Cache> cache);
  PassOn(rpc::Loop& loop, std::shared_ptr<Cache> cache, Settings settings);
  ~PassOn();

  // A blob that is being fetched. Others are given what has come of it; when this goes before the
  // blob is in the store, they are told that no more will come.
  class Arrival {
   public:
    virtual ~Arrival() = default;
    virtual void arrived(uint64_t bytes, std::shared_ptr<const blob::Store::Prefix> prefix) = 0;
  };
  std::shared_ptr<Arrival> arriving(const BlobRef& blob);

  struct Offer {
    uint16_t port = 0;
    std::string certificate_pem;  // empty: no TLS
  };
  // From now on whoever brings the ticket is given the blob. `address`: where others reach this
  // worker; a loopback one is listened on without TLS. NotFound: the blob is neither here nor on
  // its way.
  absl::StatusOr<Offer> offer(const BlobRef& blob, std::string_view ticket,
                              const std::string& address);
  bool listening() const;

  struct State;  // of the .cc

 private:
  const std::shared_ptr<State> state_;
};

}  // namespace pesc::worker
