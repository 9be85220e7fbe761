// Connections of many clients and workers to one coordinator, from one process.
#pragma once

#include <kj/async.h>

#include <memory>
#include <string>

#include "pesc.capnp.h"
#include "rpc/connection.h"
#include "rpc/credentials.h"
#include "rpc/loop.h"

namespace pesc::bench {

// Ends the process with a message: a benchmark that goes wrong has no figure.
[[noreturn]] void give_up(const std::string& why);

// As this user's tools find them; `address` is where the coordinator listens.
rpc::JoinFile credentials(const std::string& address, rpc::Role role);

struct UserLogin {
  std::unique_ptr<rpc::Connection> connection;
  protocol::UserSession::Client session;
};
struct WorkerLogin {
  std::unique_ptr<rpc::Connection> connection;
  protocol::WorkerSession::Client session;
};
kj::Promise<UserLogin> log_in_user(rpc::Loop& loop, const rpc::JoinFile& join);
kj::Promise<WorkerLogin> log_in_worker(rpc::Loop& loop, const rpc::JoinFile& join);

// As many descriptors as this process may have.
void raise_descriptor_limit();

double now_s();            // monotonic
double cpu_s(int of_pid);  // all threads of a process

uint64_t new_job_id();  // time and chance, as clients mint them
// A job of `/bin/true` that needs no file.
void fill_spec(protocol::JobSpec::Builder spec, uint32_t repetitions);
kj::Promise<uint64_t> submit(protocol::UserSession::Client session, uint32_t repetitions);

}  // namespace pesc::bench
