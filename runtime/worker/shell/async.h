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

// Runs `work` where `add(work, done)` runs it, with `done` on the loop's thread; the promise has
// its result. `work` must own what it uses: it runs to its end even when the promise is dropped.
template <typename Add, typename F, typename T = std::invoke_result_t<F>>
kj::Promise<T> promise_of(Add add, F work) {
  struct Call {
    explicit Call(F&& f) : work(std::move(f)) {}
    std::optional<F> work;
    std::optional<T> result;
    kj::Own<kj::PromiseFulfiller<T>> fulfiller;
  };
  auto paf = kj::newPromiseAndFulfiller<T>();
  auto call = std::make_shared<Call>(std::move(work));
  call->fulfiller = kj::mv(paf.fulfiller);
  add([call] { call->result.emplace((*call->work)()); },
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

// On the loop's pool.
template <typename F, typename T = std::invoke_result_t<F>>
kj::Promise<T> blocking(rpc::Loop& loop, F work) {
  return promise_of(
      [&loop](auto task, auto done) { loop.run_blocking(std::move(task), std::move(done)); },
      std::move(work));
}

}  // namespace pesc::worker
