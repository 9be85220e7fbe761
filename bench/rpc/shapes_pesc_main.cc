// rpc_shapes_pesc serve | call PORT SHAPE COUNT: over src/rpc, as PESC's own calls go on loopback.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "rpc/connection.h"
#include "shapes.h"

namespace pesc::bench {
namespace {

int serve() {
  rpc::Loop loop;
  rpc::ListenOptions options;
  options.address = {"127.0.0.1", 0};
  auto listener = rpc::listen(loop, options, [](const rpc::Peer&) { return make_shapes(); });
  if (!listener.ok()) return 1;
  std::printf("%u\n", (*listener)->local_address().port);
  std::fflush(stdout);
  loop.run();  // until it is ended
  return 0;
}

int call(uint16_t port, const std::string& shape, uint64_t count) {
  rpc::Loop loop;
  auto connection = loop.wait(rpc::connect(loop, {"127.0.0.1", port}, ""));
  auto server = connection->bootstrap().castAs<shapes::Shapes>();
  loop.wait(call_shape(server, "unary", 10));
  const double begin = shapes_now_s();
  loop.wait(call_shape(server, shape, count));
  print_rate(count, shapes_now_s() - begin);
  return 0;
}

}  // namespace
}  // namespace pesc::bench

int main(int argc, char** argv) {
  if (argc == 2) return pesc::bench::serve();
  if (argc != 5) return 2;
  return pesc::bench::call(static_cast<uint16_t>(std::atoi(argv[2])), argv[3],
                           std::strtoull(argv[4], nullptr, 10));
}
