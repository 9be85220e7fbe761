// Who has no token: how long it may stay, how much it may send, and to whom a token is not sent.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rpc/connection.h"
#include "rpc/credentials.h"
#include "rpc/peer_user.h"
#include "test_util.h"

namespace pesc::rpc {
namespace {

constexpr uint64_t kForEver = 3'600'000;

// A listener with a thread of its own, where everybody stays a stranger or nobody does.
class Guarded {
 public:
  Guarded(uint64_t admit_within_ms, uint32_t max_strangers, bool admits = false) {
    std::promise<uint16_t> bound;
    thread_ = std::thread([&, admit_within_ms, max_strangers, admits] {
      Loop loop;
      ListenOptions options;
      options.address = {"127.0.0.1", 0};
      options.admit_within_ms = admit_within_ms;
      options.max_strangers = max_strangers;
      auto listener = listen(loop, options, [admits](const Peer& peer) {
        if (admits) peer.admit();
        return capnp::Capability::Client(kj::heap<TestBlobs>());
      });
      loop_ = &loop;
      bound.set_value((*listener)->local_address().port);
      loop.run();
    });
    address = {"127.0.0.1", bound.get_future().get()};
  }
  ~Guarded() {
    loop_->stop();
    thread_.join();
  }
  Address address;

 private:
  Loop* loop_ = nullptr;
  std::thread thread_;
};

sockaddr_in loopback(uint16_t port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(port);
  return to;
}

int dial(const Address& address, const std::string& bytes) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to = loopback(address.port);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) abort();
  if (!bytes.empty()) send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  return fd;
}

const std::string kPreamble("PESC\0\0\0\3", 8);

// Returns when the server has hung up.
size_t read_to_end(int fd) {
  char buffer[256];
  size_t all = 0;
  for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;) all += static_cast<size_t>(n);
  close(fd);
  return all;
}

TEST(Strangers, WhoDoesNotLogInIsDroppedWhoDoesStays) {
  Guarded admitting(1, 10, true);
  Loop loop;
  auto admitted = connect_to(loop, admitting.address);
  ASSERT_TRUE(admitted);
  Guarded server(1, 10);
  EXPECT_EQ(read_to_end(dial(server.address, kPreamble)), 8u);
  // Their times were the same, and begun earlier.
  loop.wait(call_read(admitted->bootstrap().castAs<protocol::Blobs>(), "x", 1).ignoreResult());
}

TEST(Strangers, TheOldestMakesRoomWhetherItHasSpokenOrNot) {
  for (const std::string& said : {kPreamble, std::string()}) {
    Guarded server(kForEver, 2);
    int first = dial(server.address, said);
    if (!said.empty()) {
      char preamble[8];
      ASSERT_EQ(recv(first, preamble, 8, MSG_WAITALL), 8);
    }
    int second = dial(server.address, kPreamble), third = dial(server.address, kPreamble);
    read_to_end(first);
    Loop loop;
    auto one_more = connect_to(loop, server.address);
    ASSERT_TRUE(one_more) << "a server full of strangers takes who comes";
    close(second);
    close(third);
  }
}

TEST(Strangers, ALargeMessageIsNotTaken) {
  Guarded server(kForEver, 10);
  const uint32_t words = 128 << 10;  // 1 MiB
  std::string header(4, '\0');
  header.append(reinterpret_cast<const char*>(&words), 4);
  EXPECT_EQ(read_to_end(dial(server.address, kPreamble + header)), 8u);

  Guarded admitting(kForEver, 10, true);
  Loop loop;
  auto admitted = connect_to(loop, admitting.address);
  ASSERT_TRUE(admitted);
  auto request = admitted->bootstrap().castAs<protocol::Blobs>().putRequest();
  request.initBlobs(1).init(0, 1 << 20);
  loop.wait(request.send().ignoreResult());
}

TEST(Strangers, NoTokenGoesToAnotherMachineWithoutTls) {
  Loop loop;
  absl::Status status = failure_of(loop, connect(loop, {"192.0.2.1", 7341}, ""));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_NE(text_of(status).find("join file"), std::string::npos) << status;
}

TEST(PeerUser, IsReadFromTheTableOfSockets) {
  const std::string table =
      "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
      "inode\n"
      "   0: 0100007F:1CAD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 "
      "1234 1 0000000000000000 100 0 0 10 0\n"
      "   1: 0100007F:1CAD 0100007F:A001 01 00000000:00000000 00:00000000 00000000  1000        0 "
      "1235 1 0000000000000000 20 4 30 10 -1\n"
      "   2: 0100007F:1CAD 0100007F:A002 01 00000000:00000000 00:00000000 00000000     0        0 "
      "0 1 0000000000000000 20 4 30 10 -1\n";
  EXPECT_EQ(find_socket_owner(table, "0100007F:1CAD", "0100007F:A001"), 1000u);
  EXPECT_EQ(find_socket_owner(table, "0100007F:1CAD", "0100007F:A002"), kNobody);
  EXPECT_EQ(find_socket_owner(table, "0100007F:1CAD", "0100007F:A003"), std::nullopt);
  EXPECT_EQ(find_socket_owner("", "0100007F:1CAD", "0100007F:A003"), std::nullopt);
}

// A server that has taken the port of a coordinator which is away; root can make it another user's.
TEST(PeerUser, AnotherUsersProcessIsNotGivenTheToken) {
  const uint32_t other = geteuid() == 0 ? 65'534 : geteuid();
  std::promise<uint16_t> bound;
  std::thread impostor([&bound, other] {
    syscall(SYS_setfsuid, other);  // this thread's sockets belong to that user
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd, 2) != 0) abort();
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
    bound.set_value(ntohs(address.sin_port));
    for (int i = 0; i < 2; ++i) {
      int peer = accept(fd, nullptr, nullptr);
      send(peer, kPreamble.data(), kPreamble.size(), MSG_NOSIGNAL);
      read_to_end(peer);
    }
    close(fd);
  });
  const Address address{"127.0.0.1", bound.get_future().get()};
  {
    Loop loop;
    if (geteuid() == 0) {
      absl::Status status = failure_of(loop, connect(loop, address, ""));
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      EXPECT_NE(text_of(status).find("another user (uid 65534)"), std::string::npos) << status;
    } else {
      EXPECT_TRUE(connect_to(loop, address));  // of this user's
    }
    bool connected = false;  // where the join file says that it is that user's coordinator
    loop.wait(connect(loop, address, "", 10'000, other).then([&](std::unique_ptr<Connection>) {
      connected = true;
    }));
    EXPECT_TRUE(connected);
  }
  impostor.join();
}

TEST(PeerUser, TheJoinFileNamesTheCoordinatorsUser) {
  JoinFile join;
  join.address = "127.0.0.1:7341";
  join.name = "ann";
  join.token = "t0k3n";
  EXPECT_EQ(parse_join_file(to_json(join), "a.join")->coordinator_uid, std::nullopt);
  join.coordinator_uid = 1000;
  EXPECT_EQ(parse_join_file(to_json(join), "a.join")->coordinator_uid, 1000u);
  std::string text = to_json(join);
  text.replace(text.find("1000"), 4, "-1x0");
  EXPECT_FALSE(parse_join_file(text, "a.join").ok());
}

}  // namespace
}  // namespace pesc::rpc
