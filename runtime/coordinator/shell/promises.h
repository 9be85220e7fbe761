// Small helpers between callbacks and promises.
#pragma once

#include <kj/async.h>

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "rpc/loop.h"

namespace pesc::coordinator {

// Runs work that blocks on the loop's pool and resolves with what it returns. A promise that is
// dropped lets the work finish: it must own all it touches.
template <typename Work>
auto run_blocking(rpc::Loop& loop, Work work) -> kj::Promise<decltype(work())> {
  using Result = decltype(work());
  struct Shared {
    explicit Shared(Work w) : work(std::move(w)) {}
    Work work;
    std::optional<Result> result;
  };
  auto shared = std::make_shared<Shared>(std::move(work));
  auto paf = kj::newPromiseAndFulfiller<Result>();
  auto fulfiller = std::make_shared<kj::Own<kj::PromiseFulfiller<Result>>>(kj::mv(paf.fulfiller));
  loop.run_blocking([shared] { shared->result.emplace(shared->work()); },
                    [shared, fulfiller] {
                      if (shared->result) {
                        (*fulfiller)->fulfill(std::move(*shared->result));
                      } else {
                        (*fulfiller)
                            ->reject(rpc::to_exception(
                                absl::InternalError("the coordinator failed while reading; its log "
                                                    "says more")));
                      }
                    });
  return kj::mv(paf.promise);
}

// A promise of a callback that reports a status.
inline kj::Promise<void> status_promise(
    const std::function<void(std::function<void(const absl::Status&)>)>& call) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  auto fulfiller = std::make_shared<kj::Own<kj::PromiseFulfiller<void>>>(kj::mv(paf.fulfiller));
  call([fulfiller](const absl::Status& status) {
    if (status.ok()) {
      (*fulfiller)->fulfill();
    } else {
      (*fulfiller)->reject(rpc::to_exception(status));
    }
  });
  return kj::mv(paf.promise);
}

}  // namespace pesc::coordinator
