// Both ends of the shapes, whatever Cap'n Proto runs over.
#pragma once

#include <kj/async.h>

#include <cstdint>
#include <string>

#include "shapes.capnp.h"

namespace pesc::bench {

inline constexpr uint32_t kPayloadBytes = 32;

shapes::Shapes::Client make_shapes();

// "unary", "unary64", "server_stream" or "client_stream": so many calls or messages. With
// "_gathered" behind a stream's name: lists of messages.
kj::Promise<void> call_shape(shapes::Shapes::Client server, std::string shape, uint64_t count);

double shapes_now_s();
// One line: messages per second.
void print_rate(uint64_t count, double seconds);

}  // namespace pesc::bench
