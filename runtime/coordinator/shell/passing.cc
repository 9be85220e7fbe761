#include "runtime/coordinator/shell/passing.h"

#include <sys/random.h>

#include <utility>

#include "rpc/connection.h"
#include "rpc/log.h"
#include "runtime/coordinator/shell/messages.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kTicketBytes = 32;
constexpr size_t kMostErrorBytes = 500;

std::string make_ticket() {
  std::string ticket(kTicketBytes, '\0');
  if (::getrandom(ticket.data(), ticket.size(), 0) != static_cast<ssize_t>(ticket.size())) {
    rpc::throw_if_error(absl::InternalError("the kernel gives no random bytes"));
  }
  return ticket;
}

// What will be no better next time. Not: too busy, or late on a line that is full.
bool cannot_pass_on(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status) ||
         absl::IsUnimplemented(status);
}

}  // namespace

// An address of the loopback interface means another machine to everybody else.
bool Passing::usable(const BlobHolder::About& asking, uint64_t holder,
                     const std::set<uint64_t>& without) const {
  const BlobHolder* link = holder_(holder);
  if (link == nullptr || failing_.contains(holder)) return false;
  const BlobHolder::About& about = link->about();
  if (about.worker == asking.worker || without.contains(about.worker)) return false;
  if (rpc::is_loopback({about.address, 0}) && !(about.on_this_machine && asking.on_this_machine)) {
    return false;
  }
  const auto complaints = complaints_.find(holder);
  return complaints == complaints_.end() || complaints->second.size() < kMostComplaints;
}

kj::Promise<std::optional<HolderOffer>> Passing::find(uint64_t session, const BlobRef& blob,
                                                      std::set<uint64_t> without, uint64_t failed) {
  if (failed != 0) {
    without.insert(failed);
    const uint64_t source = holders_.source_of(blob.digest, session);
    const BlobHolder* link = holder_(source);
    if (link != nullptr && link->about().worker == failed) complaints_[source].insert(session);
  }
  // Nobody is wanted: it will read from the coordinator, and says what failed.
  if (without.contains(0)) return ask(session, blob, {}, kMostAsked);
  return ask(session, blob, std::move(without), 0);
}

kj::Promise<std::optional<HolderOffer>> Passing::ask(uint64_t session, const BlobRef& blob,
                                                     std::set<uint64_t> without, size_t asked) {
  const BlobHolder* link = holder_(session);
  if (link == nullptr) {
    return rpc::to_exception(absl::UnavailableError("this session of the worker is over"));
  }
  const BlobHolder::About& asking = link->about();
  const std::optional<uint64_t> chosen = holders_.choose(
      blob.digest, session, asking.passes_on,
      [&](uint64_t holder) { return asked < kMostAsked && usable(asking, holder, without); });
  if (!chosen) return std::optional<HolderOffer>();
  const uint64_t worker = holder_(*chosen)->about().worker;
  auto late = loop_.timer().afterDelay(kAnswerWithinMs * kj::MILLISECONDS);
  return holder_(*chosen)
      ->pass_on(blob, make_ticket())
      .exclusiveJoin(late.then([]() -> kj::Promise<HolderOffer> {
        return rpc::to_exception(absl::UnavailableError("the worker does not answer"));
      }))
      .then(
          [](HolderOffer offer) -> kj::Promise<std::optional<HolderOffer>> {
            return std::optional<HolderOffer>(std::move(offer));
          },
          [this, session, blob, without = std::move(without), asked, holder = *chosen,
           worker](kj::Exception&& e) mutable {
            const absl::Status status = rpc::to_status(e);
            rpc::log().info("event=not_passed_on blob={} error=\"{}\"", to_hex(blob.digest),
                            loggable(std::string(status.message()).substr(0, kMostErrorBytes)));
            if (cannot_pass_on(status) && holder_(holder) != nullptr) failing_.insert(holder);
            if (cannot_pass_on(status) || absl::IsNotFound(status)) {
              holders_.forget(blob.digest, holder);
            }
            without.insert(worker);
            return ask(session, blob, std::move(without), asked + 1);
          });
}

void Passing::fetched(uint64_t session, const Digest& digest, bool here) {
  const BlobHolder* link = holder_(session);
  if (here) complaints_.erase(holders_.source_of(digest, session));  // it served somebody well
  if (link != nullptr) holders_.ended(digest, session, here, link->about().passes_on);
}

void Passing::closed(uint64_t session) {
  holders_.forget(session);
  complaints_.erase(session);
  failing_.erase(session);
}

}  // namespace pesc::coordinator
