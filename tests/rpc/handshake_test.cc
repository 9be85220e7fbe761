// Who else may be at the other end: nobody, strangers, other versions, other certificates.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>

#include "pesc.capnp.h"
#include "rpc/connection.h"
#include "rpc/credentials.h"
#include "rpc/socket_stream.h"
#include "test_util.h"

namespace pesc::rpc {
namespace {

using protocol::Blobs;

const Identity& identity(int which) {
  static const std::vector<Identity> made = [] {
    std::vector<Identity> all;
    for (int i = 0; i < 2; ++i) {
      TemporaryDirectory dir;
      all.push_back(load_or_create_identity(dir.path).value());
    }
    return all;
  }();
  return made[static_cast<size_t>(which)];
}

int loopback_socket(uint16_t* port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0) abort();
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  *port = ntohs(address.sin_port);
  return fd;
}

// Takes one connection, waits until the client has spoken, answers with fixed bytes, hangs up.
class Stranger {
 public:
  explicit Stranger(std::string answer, bool hang_up = true) {
    int fd = loopback_socket(&address.port);
    address.host = "127.0.0.1";
    if (::listen(fd, 1) != 0) abort();
    thread_ = std::thread([fd, answer, hang_up] {
      int peer = accept(fd, nullptr, nullptr);
      char buffer[4096];
      ssize_t n = recv(peer, buffer, sizeof buffer, 0);
      if (!answer.empty()) n = send(peer, answer.data(), answer.size(), MSG_NOSIGNAL);
      if (hang_up) ::shutdown(peer, SHUT_WR);
      while (n > 0) n = recv(peer, buffer, sizeof buffer, 0);  // until the client goes
      close(peer);
      close(fd);
    });
  }
  ~Stranger() { thread_.join(); }
  Address address;

 private:
  std::thread thread_;
};

int connect_raw(const Address& address) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(address.port);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) abort();
  return fd;
}

std::string read_to_end(int fd) {
  std::string all;
  char buffer[4096];
  ssize_t n;
  while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0) all.append(buffer, static_cast<size_t>(n));
  close(fd);
  return all;
}

void expect_error(const absl::Status& status, absl::StatusCode code, const Address& address,
                  const std::string& text) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_NE(text_of(status).find(text), std::string::npos) << status;
  EXPECT_NE(text_of(status).find(to_string(address)), std::string::npos) << status;
}

TEST(Tls, CallsWithThePinnedCertificate) {
  ServerThread server(&identity(0));
  Loop loop;
  auto connection = connect_to(loop, server.address, identity(0).certificate_pem);
  ASSERT_TRUE(connection);
  auto blobs = connection->bootstrap().castAs<Blobs>();
  std::vector<kj::Promise<void>> calls;
  for (uint32_t i = 0; i < 200; ++i) {
    calls.push_back(call_read(blobs, "x", i % 10 == 0 ? 1 << 20 : 16, i).ignoreResult());
  }
  for (auto& call : calls) loop.wait(kj::mv(call));
}

TEST(Tls, ServerGoesInTheMiddleOfACall) {
  ServerThread server(&identity(0));
  Loop loop;
  auto connection = connect_to(loop, server.address, identity(0).certificate_pem);
  ASSERT_TRUE(connection);
  auto blobs = connection->bootstrap().castAs<Blobs>();
  auto call = call_read(blobs, "hang", 1);
  loop.wait(call_read(blobs, "x", 1).ignoreResult());
  server.stop();
  EXPECT_EQ(failure_of(loop, kj::mv(call)).code(), absl::StatusCode::kUnavailable);
  loop.wait(connection->on_disconnect());
}

TEST(Tls, ClientGoesInTheMiddleOfACall) {
  ServerThread server(&identity(0));
  Loop loop;
  auto connection = connect_to(loop, server.address, identity(0).certificate_pem);
  ASSERT_TRUE(connection);
  auto call = call_read(connection->bootstrap().castAs<Blobs>(), "hang", 1);
  loop.wait(call_read(connection->bootstrap().castAs<Blobs>(), "x", 1).ignoreResult());
  connection.reset();
  EXPECT_EQ(failure_of(loop, kj::mv(call)).code(), absl::StatusCode::kUnavailable);
  auto cancelled = server.cancelled.get_future();
  loop.run_blocking([&] { cancelled.wait(); }, [&] { loop.stop(); });
  loop.run();
}

TEST(Tls, AnotherCertificateIsRefused) {
  ServerThread server(&identity(1));
  Loop loop;
  expect_error(failure_of(loop, connect(loop, server.address, identity(0).certificate_pem)),
               absl::StatusCode::kFailedPrecondition, server.address,
               "has another certificate than the join file says: ask for a new join file");
}

TEST(Tls, DamagedCertificate) {
  Loop loop;
  ServerThread server(&identity(0));
  expect_error(failure_of(loop, connect(loop, server.address, "-----BEGIN CERTIFICATE-----\nx\n")),
               absl::StatusCode::kFailedPrecondition, server.address, "ask for a new join file");
}

TEST(Tls, PlainClientIsTold) {
  ServerThread server(&identity(0));
  Loop loop;
  expect_error(failure_of(loop, connect(loop, server.address, "")),
               absl::StatusCode::kFailedPrecondition, server.address, "speaks TLS only");
}

TEST(Tls, PlainServerIsTold) {
  ServerThread server;
  Loop loop;
  expect_error(failure_of(loop, connect(loop, server.address, identity(0).certificate_pem)),
               absl::StatusCode::kFailedPrecondition, server.address, "answers without TLS");
}

TEST(Tls, AnotherTlsServerIsExplainedToAPlainClient) {
  Stranger other(std::string("\x15\x03\x01\x00\x02\x02\x46", 7));
  Loop loop;
  expect_error(failure_of(loop, connect(loop, other.address, "")),
               absl::StatusCode::kFailedPrecondition, other.address, "speaks TLS only");
}

TEST(Connect, NobodyListens) {
  Address address{"127.0.0.1", 0};
  int fd = loopback_socket(&address.port);  // held, and not listening
  Loop loop;
  expect_error(failure_of(loop, connect(loop, address, "")), absl::StatusCode::kUnavailable,
               address, "(connection refused); is pesc-coordinator running there?");
  close(fd);
}

TEST(Connect, UnknownHostName) {
  Loop loop;
  Address address{"no-such-host.invalid", 7341};
  absl::Status status = failure_of(loop, connect(loop, address, ""));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_NE(text_of(status).find("no-such-host.invalid"), std::string::npos) << status;
}

TEST(Connect, HttpServer) {
  for (const std::string& certificate : {std::string(), identity(0).certificate_pem}) {
    Stranger http("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    Loop loop;
    expect_error(failure_of(loop, connect(loop, http.address, certificate)),
                 absl::StatusCode::kFailedPrecondition, http.address,
                 "answers, but not as a PESC coordinator");
  }
}

TEST(Connect, ShortBanner) {
  Stranger other("hi\n");
  Loop loop;
  expect_error(failure_of(loop, connect(loop, other.address, "")),
               absl::StatusCode::kFailedPrecondition, other.address, "not as a PESC coordinator");
}

TEST(Connect, HangsUpWithoutAWord) {
  for (const std::string& certificate : {std::string(), identity(0).certificate_pem}) {
    Stranger silent("");
    Loop loop;
    expect_error(failure_of(loop, connect(loop, silent.address, certificate)),
                 absl::StatusCode::kUnavailable, silent.address, "closed the connection");
  }
}

TEST(Connect, NeverAnswers) {
  Stranger silent("", false);
  Loop loop;
  expect_error(failure_of(loop, connect(loop, silent.address, "", 20)),
               absl::StatusCode::kFailedPrecondition, silent.address, "said nothing as a PESC");
}

TEST(Connect, AnotherVersion) {
  Stranger newer(std::string("PESC\0\0\0\11", 8));
  Loop loop;
  expect_error(failure_of(loop, connect(loop, newer.address, "")),
               absl::StatusCode::kFailedPrecondition, newer.address,
               "speaks protocol 9, this program " + std::to_string(protocol::PROTOCOL_VERSION) +
                   ": install the same version of PESC on both");
}

TEST(Connect, CanBeDropped) {
  Stranger silent("", false);
  Loop loop;
  { auto dropped = connect(loop, {"localhost", silent.address.port}, "").eagerlyEvaluate(nullptr); }
  {
    auto dropped = connect(loop, silent.address, "").eagerlyEvaluate(nullptr);
    loop.wait(loop.timer().afterDelay(1 * kj::MILLISECONDS));
  }
  loop.wait(loop.timer().afterDelay(1 * kj::MILLISECONDS));
}

TEST(Listener, TellsItsVersionToAnother) {
  ServerThread server;
  int fd = connect_raw(server.address);
  ASSERT_EQ(send(fd, "PESC\0\0\0\7", 8, MSG_NOSIGNAL), 8);
  ::shutdown(fd, SHUT_WR);
  EXPECT_EQ(read_to_end(fd), std::string("PESC\0\0\0\3", 8));
}

// Whatever a stranger sends, the listener goes on serving others.
TEST(Listener, GarbageHurtsNobody) {
  std::mt19937 random(7);
  for (const Identity* tls : {static_cast<const Identity*>(nullptr), &identity(0)}) {
    ServerThread server(tls);
    Loop loop;
    auto honest = connect_to(loop, server.address, tls ? tls->certificate_pem : "");
    ASSERT_TRUE(honest);
    for (int i = 0; i < 60; ++i) {
      std::string bytes = i % 2 ? std::string("PESC\0\0\0\3", 8) : "";
      if (i % 3 == 1) bytes += std::string("\xff\xff\xff\x7f\xff\xff\xff\xff", 8);  // segments
      if (i % 3 == 2) bytes += std::string("\0\0\0\0\xff\xff\xff\x1f", 8);          // a huge one
      size_t length = random() % 3000;
      for (size_t n = 0; n < length; ++n) bytes += static_cast<char>(random());
      int fd = connect_raw(server.address);
      send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      ::shutdown(fd, SHUT_WR);
      if (i % 5 == 0) {
        close(fd);
      } else {
        read_to_end(fd);
      }
    }
    auto response = loop.wait(call_read(honest->bootstrap().castAs<Blobs>(), "x", 5));
    EXPECT_EQ(response.getData().size(), 5u);
  }
}

// Well-formed frames of garbage: past the framing, into the RPC system.
TEST(Listener, GarbageMessagesHurtNobody) {
  ServerThread server;
  std::mt19937 random(11);
  for (int i = 0; i < 200; ++i) {
    uint32_t words = 1 + random() % 60;
    std::string bytes("PESC\0\0\0\3\0\0\0\0", 12);
    bytes.append(reinterpret_cast<const char*>(&words), 4);
    for (uint32_t n = 0; n < words * 8; ++n) {
      bytes += static_cast<char>(random() % 4 == 0 ? random() : random() % 3);
    }
    int fd = connect_raw(server.address);
    send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    ::shutdown(fd, SHUT_WR);
    read_to_end(fd);
  }
  Loop loop;
  auto honest = connect_to(loop, server.address);
  ASSERT_TRUE(honest);
  loop.wait(call_read(honest->bootstrap().castAs<Blobs>(), "x", 5).ignoreResult());
}

}  // namespace
}  // namespace pesc::rpc
