#include "rpc/vat_network.h"

namespace pesc::rpc {

kj::Maybe<kj::Own<capnp::TwoPartyVatNetworkBase::Connection>> VatNetwork::connect(
    capnp::rpc::twoparty::VatId::Reader peer) {
  kj::Maybe<kj::Own<Inner>> connected = inner_.connect(peer);
  KJ_IF_MAYBE (inner, connected) {
    return wrap(kj::mv(*inner));
  }
  return nullptr;
}

kj::Promise<kj::Own<capnp::TwoPartyVatNetworkBase::Connection>> VatNetwork::accept() {
  return inner_.accept().then([this](kj::Own<Inner> inner) { return wrap(kj::mv(inner)); });
}

// What `inner` does when the last of them is dropped is done when ours is.
kj::Own<capnp::TwoPartyVatNetworkBase::Connection> VatNetwork::wrap(kj::Own<Inner> inner) {
  connection_ = inner.get();
  return kj::Own<Inner>(this, kj::NullDisposer::instance).attach(kj::mv(inner));
}

kj::Own<capnp::OutgoingRpcMessage> VatNetwork::newOutgoingMessage(unsigned first_segment_words) {
  // With its bookkeeping still of a size that malloc keeps at hand for each thread.
  constexpr unsigned kFirstWords = 112;
  return connection_->newOutgoingMessage(first_segment_words == 0 ? kFirstWords
                                                                  : first_segment_words);
}

}  // namespace pesc::rpc
