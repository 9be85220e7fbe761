// Large outputs that go to the coordinator while they are packed: they are neither written nor
// hashed here, and on their way before the last of them is read.
#pragma once

#include <kj/async.h>

#include <memory>
#include <thread>

#include "pesc.capnp.h"
#include "rpc/loop.h"
#include "runtime/worker/shell/packing.h"

namespace pesc::worker {

// One at a time, on a thread of its own: it waits for the network, and the loop's pool must not.
// On the loop's thread.
class OutputSender {
 public:
  explicit OutputSender(rpc::Loop& loop) : loop_(loop) {}
  ~OutputSender();  // ends what is under way
  OutputSender(const OutputSender&) = delete;
  OutputSender& operator=(const OutputSender&) = delete;

  bool busy() const { return channel_ != nullptr; }
  // Packs and sends it; when done, it is durable at the coordinator, which has given it its name.
  // After an error nothing of it is there. Not while it is busy. Drop the promise before this.
  kj::Promise<absl::StatusOr<PackedOutput>> send(std::shared_ptr<const PackOrder> order,
                                                 protocol::Blobs::Client blobs);
  // What is under way fails soon; nothing when that is not `order`.
  void cancel(const PackOrder* order);

 private:
  class Channel;
  class Sending;
  struct Ended;
  void end();

  rpc::Loop& loop_;
  std::shared_ptr<Channel> channel_;
  std::shared_ptr<Ended> ended_;  // until the thread has gone: it must not be the last to have it
  const PackOrder* order_ = nullptr;  // of what is under way
  std::thread thread_;
};

}  // namespace pesc::worker
