// Blocking work as a KJ promise.
#pragma once

#include <kj/async.h>
#include <kj/debug.h>

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "rpc/loop.h"

namespace pesc::worker {

// Runs `work` on the loop's pool; the promise has its result. `work` must own what it uses: it runs
// to its end even when the promise is dropped.
template <typename F, typename T = std::invoke_result_t<F>>
kj::Promise<T> blocking(rpc::Loop& loop, F work) {
  struct Call {
    explicit Call(F&& f) : work(std::move(f)) {}
    std::optional<F> work;
    std::optional<T> result;
    kj::Own<kj::PromiseFulfiller<T>> fulfiller;
  };
  auto paf = kj::newPromiseAndFulfiller<T>();
  auto call = std::make_shared<Call>(std::move(work));
  call->fulfiller = kj::mv(paf.fulfiller);
  loop.run_blocking(
      [call] { call->result.emplace((*call->work)()); },
      [call] {
        call->work.reset();
        if (call->result) {
          call->fulfiller->fulfill(std::move(*call->result));
        } else {
          call->fulfiller->reject(KJ_EXCEPTION(FAILED, "blocking work threw an exception"));
        }
      });
  return kj::mv(paf.promise);
}

}  // namespace pesc::worker
