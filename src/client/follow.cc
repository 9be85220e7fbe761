#include "client/follow.h"

namespace pesc::client {
namespace {

using FollowResponse = capnp::Response<protocol::UserSession::FollowResults>;

// A coordinator that is stopped, or behind a network that drops everything, says nothing at all:
// after this long past the answer's time the connection is given up, and made again.
constexpr uint32_t kSilenceMs = 10'000;

}  // namespace

kj::Promise<Followed> follow(Session& session, UserSession& user, JobId id, uint64_t revision,
                             uint32_t committed, uint32_t wait_ms) {
  auto request = user.followRequest();
  request.setId(id.value);
  request.setRevision(revision);
  request.setCommitted(committed);
  request.setMaxWaitMs(wait_ms);
  kj::Promise<Followed> silence =
      session.thread()
          .loop()
          .timer()
          .afterDelay((int64_t{wait_ms} + kSilenceMs) * kj::MILLISECONDS)
          .then([]() -> kj::Promise<Followed> {
            return KJ_EXCEPTION(DISCONNECTED, "unavailable: the coordinator does not answer");
          });
  kj::Promise<Followed> answer =
      request.send().then([local = session.embedded()](FollowResponse response) {
        Followed out;
        out.status = to_public(response.getStatus());
        out.revision = response.getStatus().getRevision();
        out.committed = response.getStatus().getCommitted();
        for (auto rank : response.getFinished()) {
          out.finished.push_back(to_public(rank));
          if (local) say_this_machine(out.finished.back().result);
        }
        for (auto rank : response.getProgress()) out.progress.push_back(to_public(rank));
        if (local) say_this_machine(out.status);
        return out;
      });
  // Embedded, both sides stop and sleep together: no silence to be found.
  if (session.embedded()) return answer;
  return answer.exclusiveJoin(kj::mv(silence));
}

}  // namespace pesc::client
