// What the tests of this folder share.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "pesc.capnp.h"
#include "rpc/connection.h"
#include "rpc/loop.h"

namespace pesc::rpc {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "pesc-rpc-XXXXXX").string();
    if (!mkdtemp(name.data())) abort();
    path = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::filesystem::path path;
};

inline std::string text_of(const absl::Status& status) { return std::string(status.message()); }

// A server with the shape of the protocol's blobs; what a call does is told by its digest.
class TestBlobs final : public protocol::Blobs::Server {
 public:
  std::function<void()> on_hang = [] {}, on_cancel = [] {};

  kj::Promise<void> read(ReadContext context) override {
    std::string what(context.getParams().getDigest().asChars().begin(),
                     context.getParams().getDigest().size());
    if (what == "fail") throw_if_error(absl::NotFoundError("no blob: \"fail\""));
    if (what == "hang") {
      on_hang();
#if CAPNP_VERSION < 1'000'000
      context.allowCancellation();
      return kj::Promise<void>(kj::NEVER_DONE).attach(kj::defer([this] { on_cancel(); }));
#else  // later ones tell a server only what its schema asks for, in words that 0.9 does not know
      on_cancel();
      return kj::NEVER_DONE;
#endif
    }
    auto data = context.getResults().initData(context.getParams().getMaxBytes());
    for (size_t i = 0; i < data.size(); ++i) {
      data[i] = static_cast<kj::byte>(i * 131 + context.getParams().getOffset());
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> put(PutContext context) override {
    for (auto blob : context.getParams().getBlobs()) received += blob.size();
    return kj::READY_NOW;
  }

  uint64_t received = 0;
};

// A listener with a loop and a thread of its own.
class ServerThread {
 public:
  explicit ServerThread(const Identity* identity = nullptr, uint32_t max_connections = 100,
                        const char* host = "127.0.0.1") {
    std::promise<uint16_t> bound;
    thread_ = std::thread([&, identity, max_connections, host] {
      Loop loop;
      ListenOptions options{{host, 0}, identity, max_connections};
      auto listener = listen(loop, options, [this](const std::string& peer) {
        last_peer = peer;
        auto server = kj::heap<TestBlobs>();
        server->on_hang = [this] { hanging.set_value(); };
        server->on_cancel = [this] { cancelled.set_value(); };
        return capnp::Capability::Client(kj::mv(server));
      });
      if (!listener.ok()) {
        ADD_FAILURE() << listener.status();
        bound.set_value(0);
        return;
      }
      loop_ = &loop;
      bound.set_value((*listener)->local_address().port);
      loop.run();
    });
    address = {host, bound.get_future().get()};
  }
  ~ServerThread() { stop(); }

  void stop() {
    if (!thread_.joinable()) return;
    loop_->stop();
    thread_.join();
  }

  Address address;
  std::promise<void> hanging, cancelled;
  std::string last_peer;  // read it after stop()

 private:
  Loop* loop_ = nullptr;
  std::thread thread_;
};

// The status of a promise that should fail.
template <typename T>
absl::Status failure_of(Loop& loop, kj::Promise<T> promise) {
  absl::Status status;
  loop.wait(promise.then([](T&&) {}, [&](kj::Exception&& e) { status = to_status(e); }));
  return status;
}

inline std::unique_ptr<Connection> connect_to(Loop& loop, const Address& address,
                                              std::string certificate = "") {
  std::unique_ptr<Connection> connection;
  loop.wait(connect(loop, address, std::move(certificate))
                .then([&](std::unique_ptr<Connection> c) { connection = std::move(c); },
                      [](kj::Exception&& e) { ADD_FAILURE() << to_status(e); }));
  return connection;
}

inline kj::Promise<capnp::Response<protocol::Blobs::ReadResults>> call_read(
    protocol::Blobs::Client blobs, const std::string& what, uint32_t bytes, uint64_t offset = 0) {
  auto request = blobs.readRequest();
  request.setDigest(kj::StringPtr(what.c_str()).asBytes());
  request.setMaxBytes(bytes);
  request.setOffset(offset);
  return request.send();
}

}  // namespace pesc::rpc
