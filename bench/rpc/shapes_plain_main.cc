// rpc_shapes_plain serve | call PORT SHAPE COUNT: Cap'n Proto over KJ's own loop and streams.
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "shapes.h"

namespace pesc::bench {
namespace {

kj::Own<kj::AsyncIoStream> prompt(kj::Own<kj::AsyncIoStream> stream) {
  int one = 1;
  stream->setsockopt(IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return stream;
}

kj::Promise<void> accept_all(kj::ConnectionReceiver& receiver, capnp::TwoPartyServer& server) {
  return receiver.accept().then([&](kj::Own<kj::AsyncIoStream> stream) {
    server.accept(prompt(kj::mv(stream)));
    return accept_all(receiver, server);
  });
}

int serve() {
  auto io = kj::setupAsyncIo();
  capnp::TwoPartyServer server(make_shapes());
  auto address = io.provider->getNetwork().parseAddress("127.0.0.1", 0).wait(io.waitScope);
  auto receiver = address->listen();
  std::printf("%u\n", receiver->getPort());
  std::fflush(stdout);
  accept_all(*receiver, server).wait(io.waitScope);
  return 0;
}

int call(unsigned port, const std::string& shape, uint64_t count) {
  auto io = kj::setupAsyncIo();
  auto address = io.provider->getNetwork().parseAddress("127.0.0.1", port).wait(io.waitScope);
  auto stream = prompt(address->connect().wait(io.waitScope));
  capnp::TwoPartyClient client(*stream);
  auto server = client.bootstrap().castAs<shapes::Shapes>();
  call_shape(server, "unary", 10).wait(io.waitScope);
  const double begin = shapes_now_s();
  call_shape(server, shape, count).wait(io.waitScope);
  print_rate(count, shapes_now_s() - begin);
  return 0;
}

}  // namespace
}  // namespace pesc::bench

int main(int argc, char** argv) {
  if (argc == 2) return pesc::bench::serve();
  if (argc != 5) return 2;
  return pesc::bench::call(static_cast<unsigned>(std::atoi(argv[2])), argv[3],
                           std::strtoull(argv[4], nullptr, 10));
}
