#include "runtime/worker/shell/holder.h"

#include <utility>

#include "protocol/codec.h"

namespace pesc::worker {

kj::Promise<kj::Own<HolderConnection>> HolderConnection::open(rpc::Loop& loop, const Holder& holder,
                                                              uint64_t timeout_ms) {
  auto late = loop.timer().afterDelay(static_cast<int64_t>(timeout_ms) * kj::MILLISECONDS);
  return rpc::connect(loop, {holder.address, holder.port}, holder.certificate_pem, timeout_ms)
      .then([worker = holder.worker,
             ticket = holder.ticket](std::unique_ptr<rpc::Connection> connection) {
        auto opened = kj::heap<HolderConnection>();
        opened->worker_ = worker;
        opened->connection_ = std::move(connection);
        auto request =
            opened->connection_->bootstrap().castAs<protocol::PassedBlobs>().openRequest();
        request.setTicket(protocol::as_data(ticket));
        auto answer = request.send();
        return answer.then([opened = kj::mv(opened)](auto&& response) mutable {
          opened->blob_ = response.getBlob();
          return kj::mv(opened);
        });
      })
      .exclusiveJoin(late.then([]() -> kj::Promise<kj::Own<HolderConnection>> {
        return rpc::to_exception(absl::UnavailableError("the worker says nothing"));
      }));
}

// What was made of the connection goes before it.
HolderConnection::~HolderConnection() noexcept {
  blob_ = nullptr;
  connection_.reset();
}

kj::Promise<std::string> HolderConnection::read(uint64_t offset, uint32_t bytes) {
  KJ_IF_MAYBE (blob, blob_) {
    auto request = blob->readRequest();
    request.setOffset(offset);
    request.setMaxBytes(bytes);
    return request.send().then(
        [](auto&& response) { return std::string(protocol::as_view(response.getData())); });
  }
  return rpc::to_exception(absl::UnavailableError("the connection is gone"));
}

}  // namespace pesc::worker
