#include "rpc/connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "rpc/socket_stream.h"
#include "test_util.h"

namespace pesc::rpc {
namespace {

using protocol::Blobs;

TEST(Address, Parses) {
  auto a = parse_address("lab1.example.org:7000");
  ASSERT_TRUE(a.ok());
  EXPECT_EQ(a->host, "lab1.example.org");
  EXPECT_EQ(a->port, 7000);
  EXPECT_EQ(parse_address("[::1]:80")->host, "::1");
  EXPECT_EQ(to_string(*parse_address("[::1]:80")), "[::1]:80");
  EXPECT_EQ(parse_address(":7341")->host, "");
  EXPECT_EQ(parse_address("lab1")->port, kDefaultPort);
  EXPECT_EQ(parse_address("[fe80::1%eth0]")->port, kDefaultPort);
}

TEST(Address, RefusesWithAReason) {
  for (const char* text : {"", "a:b", "a:", "a:65536", "a:-1", "a:1x", "::1", "[::1", "[]:1",
                           "[::1]1", "7341", "a b:1", "http://a:1", "me@a:1", "a\n:1"}) {
    auto a = parse_address(text);
    EXPECT_EQ(a.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(text_of(a.status()).find("HOST:PORT"), std::string::npos) << text;
  }
}

TEST(Address, Loopback) {
  EXPECT_TRUE(is_loopback({"localhost", 1}));
  EXPECT_TRUE(is_loopback({"127.1.2.3", 1}));
  EXPECT_TRUE(is_loopback({"::1", 1}));
  EXPECT_FALSE(is_loopback({"", 1}));
  EXPECT_FALSE(is_loopback({"127.evil.example.org", 1}));
  EXPECT_FALSE(is_loopback({"192.0.2.1", 1}));
}

TEST(Connection, CallsOverTcp) {
  ServerThread server;
  Loop loop;
  auto connection = connect_to(loop, server.address);
  ASSERT_TRUE(connection);
  EXPECT_EQ(connection->peer_address(), "127.0.0.1");
  auto blobs = connection->bootstrap().castAs<Blobs>();
  std::vector<kj::Promise<void>> calls;
  int answered = 0;
  for (uint32_t i = 0; i < 2000; ++i) {
    calls.push_back(call_read(blobs, "x", 16, i).then([i, &answered](auto&& response) {
      EXPECT_EQ(response.getData()[0], static_cast<kj::byte>(i));
      ++answered;
    }));
  }
  for (auto& call : calls) loop.wait(kj::mv(call));
  EXPECT_EQ(answered, 2000);
  server.stop();
  EXPECT_EQ(server.last_peer, "127.0.0.1");
}

TEST(Connection, LocalhostByName) {
  ServerThread server;
  Loop loop;
  auto connection = connect_to(loop, {"localhost", server.address.port});
  ASSERT_TRUE(connection);
  loop.wait(call_read(connection->bootstrap().castAs<Blobs>(), "x", 1).ignoreResult());
}

TEST(Connection, BigPayloadsBothWays) {
  ServerThread server;
  Loop loop;
  auto connection = connect_to(loop, server.address);
  ASSERT_TRUE(connection);
  auto blobs = connection->bootstrap().castAs<Blobs>();
  std::vector<kj::Promise<void>> calls;
  for (uint32_t i = 0; i < 32; ++i) {
    calls.push_back(call_read(blobs, "x", 1 << 20, i).then([i](auto&& response) {
      ASSERT_EQ(response.getData().size(), 1u << 20);
      EXPECT_EQ(response.getData()[1 << 19], static_cast<kj::byte>((1 << 19) * 131 + i));
    }));
    auto put = blobs.putRequest();
    auto list = put.initBlobs(1);
    memset(list.init(0, 1 << 20).begin(), 7, 1 << 20);
    calls.push_back(put.send().ignoreResult());
  }
  for (auto& call : calls) loop.wait(kj::mv(call));
}

TEST(Connection, StatusOfAFailedCall) {
  ServerThread server;
  Loop loop;
  auto connection = connect_to(loop, server.address);
  ASSERT_TRUE(connection);
  auto status = failure_of(loop, call_read(connection->bootstrap().castAs<Blobs>(), "fail", 1));
  EXPECT_EQ(status, absl::NotFoundError("no blob: \"fail\""));
}

TEST(Connection, MethodOfANewerVersion) {
  ServerThread server;
  Loop loop;
  auto connection = connect_to(loop, server.address);
  ASSERT_TRUE(connection);
  auto front = connection->bootstrap().castAs<protocol::Front>();
  auto status = failure_of(loop, front.loginRequest().send());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(text_of(status).find("versions differ"), std::string::npos);
}

TEST(Connection, DroppedCallIsCancelled) {
  ServerThread server;
  Loop loop;
  auto connection = connect_to(loop, server.address);
  ASSERT_TRUE(connection);
  auto blobs = connection->bootstrap().castAs<Blobs>();
  {
    auto call = call_read(blobs, "hang", 1);
    loop.wait(call_read(blobs, "x", 1).ignoreResult());  // the hanging one is there before it
    server.hanging.get_future().wait();
  }
  loop.wait(call_read(blobs, "x", 1).ignoreResult());
  server.cancelled.get_future().wait();
}

TEST(Connection, ServerGoesInTheMiddleOfACall) {
  ServerThread server;
  Loop loop;
  auto connection = connect_to(loop, server.address);
  ASSERT_TRUE(connection);
  auto blobs = connection->bootstrap().castAs<Blobs>();
  auto call = call_read(blobs, "hang", 1);
  loop.wait(call_read(blobs, "x", 1).ignoreResult());
  server.stop();
  EXPECT_EQ(failure_of(loop, kj::mv(call)).code(), absl::StatusCode::kUnavailable);
  loop.wait(connection->on_disconnect());
  EXPECT_EQ(failure_of(loop, call_read(blobs, "x", 1)).code(), absl::StatusCode::kUnavailable);
}

TEST(Connection, ClientGoesInTheMiddleOfACall) {
  ServerThread server;
  Loop loop;
  auto connection = connect_to(loop, server.address);
  ASSERT_TRUE(connection);
  auto call = call_read(connection->bootstrap().castAs<Blobs>(), "hang", 1);
  loop.wait(call_read(connection->bootstrap().castAs<Blobs>(), "x", 1).ignoreResult());
  connection.reset();
  loop.wait(loop.timer().afterDelay(0 * kj::SECONDS));  // what is left to send goes out
  EXPECT_EQ(failure_of(loop, kj::mv(call)).code(), absl::StatusCode::kUnavailable);
  server.cancelled.get_future().wait();
}

TEST(Connection, AdoptsASocketpairBothWays) {
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  Loop loop;
  auto a = adopt(loop, fds[0], kj::heap<TestBlobs>());
  auto b = adopt(loop, fds[1], kj::heap<TestBlobs>());
  EXPECT_EQ(a->peer_address(), "local");
  for (auto* side : {a.get(), b.get()}) {
    auto response = loop.wait(call_read(side->bootstrap().castAs<Blobs>(), "x", 3));
    EXPECT_EQ(response.getData().size(), 3u);
  }
  auto gone = b->on_disconnect();
  a.reset();
  loop.wait(kj::mv(gone));
}

TEST(Connection, ManyMessagesOfATurnShareACall) {
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  Loop loop;
  auto a = adopt(loop, fds[0], nullptr);
  SocketStream raw(loop, fds[1]);
  auto blobs = a->bootstrap().castAs<Blobs>();
  std::vector<kj::Promise<void>> calls;
  for (int i = 0; i < 20; ++i) calls.push_back(call_read(blobs, "x", 1).ignoreResult());
  char buffer[16384];
  // A read of one byte at least takes what one write brought: all twenty.
  size_t n = loop.wait(raw.tryRead(buffer, 1, sizeof buffer));
  EXPECT_GT(n, 20 * 64u);
}

TEST(SocketStream, ReadsCanBeDroppedAndTakenUpAgain) {
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  Loop loop;
  SocketStream a(loop, fds[0]), b(loop, fds[1]);
  char buffer[8] = {};
  for (int i = 0; i < 3; ++i) {
    auto dropped = a.tryRead(buffer, 1, sizeof buffer);
  }
  auto read = a.tryRead(buffer, 2, sizeof buffer);
  loop.wait(b.write("x", 1));
  loop.wait(b.write("y", 1));
  EXPECT_EQ(loop.wait(kj::mv(read)), 2u);
  EXPECT_EQ(std::string(buffer, 2), "xy");
  b.shutdownWrite();
  EXPECT_EQ(loop.wait(a.tryRead(buffer, 1, sizeof buffer)), 0u);
}

TEST(SocketStream, WritesManyPiecesAgainstAFullSocket) {
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  Loop loop;
  SocketStream a(loop, fds[0]), b(loop, fds[1]);
  std::vector<std::string> parts;
  std::vector<kj::ArrayPtr<const kj::byte>> pieces;
  std::string whole;
  for (int i = 0; i < 300; ++i) {
    parts.push_back(
        std::string(static_cast<size_t>(i * 37 % 9000), static_cast<char>('a' + i % 26)));
    whole += parts.back();
  }
  for (auto& part : parts) {
    pieces.push_back(kj::arrayPtr(reinterpret_cast<const kj::byte*>(part.data()), part.size()));
  }
  auto written = a.write(kj::arrayPtr(pieces.data(), pieces.size())).eagerlyEvaluate(nullptr);
  std::string got(whole.size(), ' ');
  EXPECT_EQ(loop.wait(b.tryRead(got.data(), got.size(), got.size())), whole.size());
  loop.wait(kj::mv(written));
  EXPECT_TRUE(got == whole);
}

TEST(SocketStream, ALostPeerIsADisconnectAndNoSignal) {
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  Loop loop;
  auto a = kj::heap<SocketStream>(loop, fds[0]);
  auto lost = a->whenWriteDisconnected();
  auto lost_again = a->whenWriteDisconnected();
  close(fds[1]);
  loop.wait(kj::mv(lost));
  loop.wait(kj::mv(lost_again));
  absl::Status status;
  loop.wait(a->write("x", 1).catch_([&](kj::Exception&& e) { status = to_status(e); }));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
}

TEST(SocketStream, DestroyedWhileItsWaitIsArmed) {
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  Loop loop;
  char byte;
  {
    SocketStream a(loop, fds[0]);
    auto read = a.tryRead(&byte, 1, 1);
  }
  EXPECT_EQ(send(fds[1], "x", 1, MSG_NOSIGNAL), -1);
  close(fds[1]);
  loop.wait(loop.timer().afterDelay(1 * kj::MILLISECONDS));  // the aborted handler runs
}

TEST(Listener, ServesMoreThanItsLimitOneAfterTheOther) {
  ServerThread server(nullptr, 2);
  Loop loop;
  auto first = connect_to(loop, server.address);
  auto second = connect_to(loop, server.address);
  ASSERT_TRUE(first && second);
  loop.wait(call_read(first->bootstrap().castAs<Blobs>(), "x", 1).ignoreResult());
  loop.wait(call_read(second->bootstrap().castAs<Blobs>(), "x", 1).ignoreResult());
  absl::Status status = failure_of(loop, connect(loop, server.address, ""));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  first.reset();
  std::unique_ptr<Connection> third;
  while (!third) {  // until the server has seen it go
    loop.wait(connect(loop, server.address, "")
                  .then([&](std::unique_ptr<Connection> c) { third = std::move(c); },
                        [](kj::Exception&&) {}));
  }
  loop.wait(call_read(third->bootstrap().castAs<Blobs>(), "x", 1).ignoreResult());
}

TEST(Listener, RefusesWithAReason) {
  Loop loop;
  auto make = [](const std::string&) { return capnp::Capability::Client(nullptr); };
  auto first = listen(loop, {{"127.0.0.1", 0}}, make);
  ASSERT_TRUE(first.ok());
  auto again = listen(loop, {(*first)->local_address()}, make);
  EXPECT_EQ(again.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(text_of(again.status()).find("something else does already"), std::string::npos);
  auto elsewhere = listen(loop, {{"192.0.2.1", 0}}, make);
  EXPECT_EQ(elsewhere.status().code(), absl::StatusCode::kInvalidArgument);
  Identity damaged{"no certificate", "no key"};
  auto bad = listen(loop, {{"127.0.0.1", 0}, &damaged}, make);
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(Listener, AllInterfacesTakeIpv4) {
  ServerThread server(nullptr, 10, "");
  Loop loop;
  auto connection = connect_to(loop, {"127.0.0.1", server.address.port});
  ASSERT_TRUE(connection);
  loop.wait(call_read(connection->bootstrap().castAs<Blobs>(), "x", 1).ignoreResult());
  server.stop();
  EXPECT_EQ(server.last_peer, "127.0.0.1");  // not ::ffff:127.0.0.1
}

// With no descriptor left a listener pauses, and goes on when there are some.
TEST(Listener, SurvivesRunningOutOfDescriptors) {
  Loop loop;
  auto listener = listen(loop, {{"127.0.0.1", 0}}, [](const std::string&) {
    return capnp::Capability::Client(kj::heap<TestBlobs>());
  });
  ASSERT_TRUE(listener.ok());
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons((*listener)->local_address().port);
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  rlimit none = before;
  none.rlim_cur = 0;
  ::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  loop.wait(loop.timer().afterDelay(1 * kj::MILLISECONDS));  // it tries, and pauses
  setrlimit(RLIMIT_NOFILE, &before);
  SocketStream stream(loop, fd);
  char preamble[8];
  EXPECT_EQ(loop.wait(stream.tryRead(preamble, 8, 8)), 8u);
  EXPECT_EQ(std::string(preamble, 4), "PESC");
}

}  // namespace
}  // namespace pesc::rpc
