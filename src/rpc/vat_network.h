// Cap'n Proto's network of two, with messages that begin small.
#pragma once

#include <capnp/rpc-twoparty.h>

namespace pesc::rpc {

// The library takes 8 KiB for each message whose size it is not told, and gives them back: for the
// small ones that most calls, answers and releases are, that is the largest part of their cost. A
// message that grows takes further segments, each as large as all before it.
//
// Refers to `inner`, which must outlive it. Like that one it is network and connection at once: the
// RPC system tells connections apart by their address, and there is only one.
class VatNetwork final : public capnp::TwoPartyVatNetworkBase,
                         private capnp::TwoPartyVatNetworkBase::Connection {
 public:
  explicit VatNetwork(capnp::TwoPartyVatNetwork& inner) : inner_(inner) {}

  kj::Maybe<kj::Own<capnp::TwoPartyVatNetworkBase::Connection>> connect(
      capnp::rpc::twoparty::VatId::Reader peer) override;
  kj::Promise<kj::Own<capnp::TwoPartyVatNetworkBase::Connection>> accept() override;

 private:
  using Inner = capnp::TwoPartyVatNetworkBase::Connection;

  kj::Own<Inner> wrap(kj::Own<Inner> inner);

  kj::Own<capnp::OutgoingRpcMessage> newOutgoingMessage(unsigned first_segment_words) override;
  // What the kernel's buffer holds would be asked for each message, and is megabytes on loopback:
  // the messages on their way would be in no cache any more.
  kj::Own<capnp::RpcFlowController> newStream() override {
    return capnp::RpcFlowController::newFixedWindowController(64 << 10);
  }
  capnp::rpc::twoparty::VatId::Reader getPeerVatId() override {
    return connection_->getPeerVatId();
  }
  kj::Promise<kj::Maybe<kj::Own<capnp::IncomingRpcMessage>>> receiveIncomingMessage() override {
    return connection_->receiveIncomingMessage();
  }
  kj::Promise<void> shutdown() override { return connection_->shutdown(); }

  capnp::TwoPartyVatNetwork& inner_;
  Inner* connection_ = nullptr;  // of inner_, and as long there as it is
};

}  // namespace pesc::rpc
