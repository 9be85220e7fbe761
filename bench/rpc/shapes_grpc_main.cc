// rpc_shapes_grpc serve | call PORT SHAPE COUNT: the same shapes over gRPC, in plain text. Calls
// are served and made by completion queues, streams by the synchronous interface: the quicker of
// the two for each.
#include <grpcpp/grpcpp.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "shapes.grpc.pb.h"

namespace {

constexpr size_t kPayloadBytes = 32;
constexpr int kInFlight = 64;

double now_s() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

class Streams : public shapes::Shapes::Service {
 public:
  grpc::Status PullStream(grpc::ServerContext*, const shapes::Pull* request,
                          grpc::ServerWriter<shapes::Payload>* writer) override {
    shapes::Payload payload;
    payload.set_data(std::string(request->size_bytes(), 'x'));
    for (uint64_t i = 0; i < request->count(); ++i) {
      if (!writer->Write(payload)) break;
    }
    return grpc::Status::OK;
  }
  grpc::Status PushStream(grpc::ServerContext*, grpc::ServerReader<shapes::Payload>* reader,
                          shapes::Count* answer) override {
    shapes::Payload payload;
    uint64_t count = 0;
    while (reader->Read(&payload)) ++count;
    answer->set_count(count);
    return grpc::Status::OK;
  }
};
using Service = shapes::Shapes::WithAsyncMethod_Echo<Streams>;

// One call after another, as many of these as may be in flight.
class EchoCall {
 public:
  EchoCall(Service& service, grpc::ServerCompletionQueue& queue)
      : service_(service), queue_(queue) {
    wait();
  }
  void proceed(bool ok) {
    if (!ok) return;
    if (answering_) return wait();
    answering_ = true;
    answer_.set_data(request_.data());
    responder_->Finish(answer_, grpc::Status::OK, this);
  }

 private:
  void wait() {
    answering_ = false;
    context_ = std::make_unique<grpc::ServerContext>();
    responder_ = std::make_unique<grpc::ServerAsyncResponseWriter<shapes::Payload>>(context_.get());
    service_.RequestEcho(context_.get(), &request_, responder_.get(), &queue_, &queue_, this);
  }
  Service& service_;
  grpc::ServerCompletionQueue& queue_;
  std::unique_ptr<grpc::ServerContext> context_;
  std::unique_ptr<grpc::ServerAsyncResponseWriter<shapes::Payload>> responder_;
  shapes::Payload request_, answer_;
  bool answering_ = false;
};

int serve() {
  Service service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  auto queue = builder.AddCompletionQueue();
  auto server = builder.BuildAndStart();
  if (!server) return 1;
  std::vector<std::unique_ptr<EchoCall>> calls;
  for (int i = 0; i < 2 * kInFlight; ++i)
    calls.push_back(std::make_unique<EchoCall>(service, *queue));
  std::printf("%d\n", port);
  std::fflush(stdout);
  void* tag = nullptr;
  for (bool ok = false; queue->Next(&tag, &ok);) static_cast<EchoCall*>(tag)->proceed(ok);
  return 0;
}

void unary(shapes::Shapes::Stub& stub, uint64_t count) {
  shapes::Payload request, answer;
  request.set_data(std::string(kPayloadBytes, 'x'));
  for (uint64_t i = 0; i < count; ++i) {
    grpc::ClientContext context;
    if (!stub.Echo(&context, request, &answer).ok()) std::exit(1);
  }
}

struct Pending {
  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::ClientAsyncResponseReader<shapes::Payload>> reader;
  shapes::Payload answer;
  grpc::Status status;
};

void unary_many(shapes::Shapes::Stub& stub, uint64_t count) {
  grpc::CompletionQueue queue;
  shapes::Payload request;
  request.set_data(std::string(kPayloadBytes, 'x'));
  std::vector<Pending> pending(kInFlight);
  uint64_t sent = 0;
  auto send = [&](Pending& one) {
    one.context = std::make_unique<grpc::ClientContext>();
    one.reader = stub.AsyncEcho(one.context.get(), request, &queue);
    one.reader->Finish(&one.answer, &one.status, &one);
    ++sent;
  };
  for (auto& one : pending) {
    if (sent < count) send(one);
  }
  for (uint64_t done = 0; done < count; ++done) {
    void* tag = nullptr;
    bool ok = false;
    if (!queue.Next(&tag, &ok) || !ok) std::exit(1);
    auto& one = *static_cast<Pending*>(tag);
    if (!one.status.ok() || one.answer.data().size() != kPayloadBytes) std::exit(1);
    if (sent < count) send(one);
  }
}

void server_stream(shapes::Shapes::Stub& stub, uint64_t count) {
  grpc::ClientContext context;
  shapes::Pull pull;
  pull.set_count(count);
  pull.set_size_bytes(kPayloadBytes);
  auto reader = stub.PullStream(&context, pull);
  shapes::Payload payload;
  uint64_t seen = 0;
  while (reader->Read(&payload)) ++seen;
  if (!reader->Finish().ok() || seen != count) std::exit(1);
}

void client_stream(shapes::Shapes::Stub& stub, uint64_t count) {
  grpc::ClientContext context;
  shapes::Count answer;
  auto writer = stub.PushStream(&context, &answer);
  shapes::Payload payload;
  payload.set_data(std::string(kPayloadBytes, 'x'));
  for (uint64_t i = 0; i < count; ++i) {
    if (!writer->Write(payload)) std::exit(1);
  }
  writer->WritesDone();
  if (!writer->Finish().ok() || answer.count() != count) std::exit(1);
}

int call(const std::string& port, const std::string& shape, uint64_t count) {
  auto channel = grpc::CreateChannel("127.0.0.1:" + port, grpc::InsecureChannelCredentials());
  auto stub = shapes::Shapes::NewStub(channel);
  unary(*stub, 10);
  const double begin = now_s();
  if (shape == "unary") {
    unary(*stub, count);
  } else if (shape == "unary64") {
    unary_many(*stub, count);
  } else if (shape == "server_stream") {
    server_stream(*stub, count);
  } else if (shape == "client_stream") {
    client_stream(*stub, count);
  } else {
    return 2;
  }
  std::printf("%.1f\n", static_cast<double>(count) / (now_s() - begin));
  std::fflush(stdout);
  std::_Exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2) return serve();
  if (argc != 5) return 2;
  return call(argv[2], argv[3], std::strtoull(argv[4], nullptr, 10));
}
