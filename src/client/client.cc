#include "pesc/client.h"

#include <ctime>
#include <mutex>
#include <random>

#include "client/prepare.h"
#include "client/state.h"
#include "client/transfer.h"
#include "protocol/codec.h"

namespace pesc {
namespace {

using client::Session;
using client::UserSession;

// 2020-01-01: what the ids of jobs count their seconds from.
constexpr int64_t kIdEpoch = 1'577'836'800;

JobId mint_job_id() {
  std::random_device random;
  uint64_t seconds = static_cast<uint64_t>(std::time(nullptr) - kIdEpoch) & 0xffff'ffffu;
  return JobId{seconds << 32 | random()};
}

// Sends what nobody has hashed yet; where the coordinator wants its name first, it gets one here.
absl::Status name_large_files(Session& session, client::PreparedJob& job) {
  while (!job.unnamed.empty()) {
    const auto [stand_in, unchanged] = *job.unnamed.begin();
    const std::filesystem::path path = job.sources.at(stand_in);
    absl::StatusOr<std::optional<BlobRef>> named = client::upload_unnamed(session, path, unchanged);
    if (!named.ok()) return named.status();
    if (!named->has_value()) {
      absl::StatusOr<BlobRef> hashed = blob::hash_file(path, unchanged);
      if (!hashed.ok()) return client::changed_file(path);
      *named = *hashed;
    }
    client::rename_blob(job, stand_in, **named);
    job.unnamed.erase(stand_in);
  }
  return absl::OkStatus();
}

absl::Status prepared_upload(Session& session, client::PreparedJob& job) {
  if (absl::Status named = name_large_files(session, job); !named.ok()) return named;
  std::vector<BlobRef> blobs;
  std::map<Digest, bool> seen;
  for (const FileRef& file : job.spec.files) {
    if (file.kind == FileKind::directory) continue;
    if (seen.emplace(file.blob.digest, true).second) blobs.push_back(file.blob);
  }
  return blobs.empty() ? absl::OkStatus() : client::upload(session, blobs, job.sources);
}

std::shared_ptr<JobHandle::State> handle_state(std::shared_ptr<Session> session, JobId id) {
  auto state = std::make_shared<JobHandle::State>();
  state->session = std::move(session);
  state->id = id;
  state->id_text = to_string(id);
  return state;
}

std::shared_ptr<Client::State> client_state(std::shared_ptr<Session> session) {
  auto state = std::make_shared<Client::State>();
  state->session = std::move(session);
  return state;
}

}  // namespace

std::string new_job_id() { return to_string(mint_job_id()); }

Client::Client(std::shared_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<Client> Client::connect(const std::string& coordinator) {
  auto found = rpc::find_coordinator(coordinator, rpc::Role::user);
  if (!found.ok()) return found.status();
  if (!found->has_value()) {
    return absl::NotFoundError(
        "no coordinator is named: give its address, set PESC_COORDINATOR, or write "
        "`coordinator = \"host:port\"` into " +
        (rpc::user_config_dir() / "config.toml").string());
  }
  auto session = Session::connect(**std::move(found));
  if (!session.ok()) return session.status();
  return Client(client_state(*std::move(session)));
}

absl::StatusOr<Client> Client::local(const LocalOptions& options) {
  auto session = Session::local(options);
  if (!session.ok()) return session.status();
  return Client(client_state(*std::move(session)));
}

absl::StatusOr<LocalCluster> LocalCluster::start(const LocalOptions& options) {
  absl::StatusOr<Client> client = Client::local(options);
  if (!client.ok()) return client.status();
  return LocalCluster(*std::move(client));
}

const std::shared_ptr<Session>& Client::session() const { return state_->session; }

bool Client::embedded() const { return state_->session->embedded(); }

absl::StatusOr<JobHandle> Client::submit(const Job& job, const std::string& id_text) {
  absl::StatusOr<client::PreparedJob> prepared = client::prepare(job, client::Naming::when_sent);
  if (!prepared.ok()) return prepared.status();
  return client::submit(*this, *prepared, id_text);
}

absl::StatusOr<JobHandle> client::submit(const Client& client, PreparedJob& job,
                                         const std::string& id_text) {
  absl::StatusOr<JobId> id = id_text.empty() ? mint_job_id() : parse_job_id(id_text);
  if (!id.ok()) return id.status();
  const std::shared_ptr<Session>& session = client.session();
  absl::Status status = prepared_upload(*session, job);
  if (!status.ok()) return status;
  status = session->call_void([&](UserSession& user) {
    auto request = user.submitRequest();
    request.setId(id->value);
    protocol::encode(request.initSpec(), job.spec);
    return request.send().ignoreResult();
  });
  if (!status.ok()) return status;
  return JobHandle(handle_state(session, *id));
}

absl::StatusOr<JobHandle> Client::attach(const std::string& id_text) {
  absl::StatusOr<JobId> id = parse_job_id(id_text);
  if (!id.ok()) return id.status();
  JobHandle handle(handle_state(state_->session, *id));
  absl::StatusOr<JobStatus> status = handle.status();
  if (!status.ok()) return status.status();
  return handle;
}

absl::StatusOr<std::vector<JobStatus>> Client::jobs(uint32_t max) {
  std::vector<JobStatus> jobs;
  uint64_t before = UINT64_MAX;
  while (jobs.size() < max) {
    auto page = state_->session->call<std::vector<JobStatus>>([&](UserSession& user) {
      auto request = user.jobsRequest();
      request.setBefore(before);
      request.setMax(std::min<uint32_t>(1'000, max - jobs.size()));
      return request.send().then([](capnp::Response<protocol::UserSession::JobsResults> response) {
        std::vector<JobStatus> page;
        for (auto job : response.getJobs()) page.push_back(client::to_public(job));
        return page;
      });
    });
    if (!page.ok()) return page.status();
    if (page->empty()) break;
    before = parse_job_id(page->back().id)->value;
    jobs.insert(jobs.end(), page->begin(), page->end());
  }
  return jobs;
}

absl::StatusOr<std::vector<WhyLine>> Client::why(const std::string& id_text) {
  absl::StatusOr<JobId> id = parse_job_id(id_text);
  if (!id.ok()) return id.status();
  auto why = state_->session->call<std::vector<WhyLine>>([id](UserSession& user) {
    auto request = user.whyRequest();
    request.setId(id->value);
    return request.send().then([](capnp::Response<protocol::UserSession::WhyResults> response) {
      std::vector<WhyLine> lines;
      for (auto line : response.getLines()) lines.push_back(client::to_public(line));
      return lines;
    });
  });
  if (why.ok() && embedded()) {
    for (WhyLine& line : *why) client::say_this_machine(line);
  }
  return why;
}

absl::StatusOr<uint32_t> Client::retry(const std::string& id_text) {
  absl::StatusOr<JobId> id = parse_job_id(id_text);
  if (!id.ok()) return id.status();
  return state_->session->call<uint32_t>([id](UserSession& user) {
    auto request = user.retryRequest();
    request.setId(id->value);
    return request.send().then([](capnp::Response<protocol::UserSession::RetryResults> response) {
      return response.getRanks();
    });
  });
}

absl::Status Client::remove(const std::string& id_text) {
  absl::StatusOr<JobId> id = parse_job_id(id_text);
  if (!id.ok()) return id.status();
  return state_->session->call_void([id](UserSession& user) {
    auto request = user.removeRequest();
    request.setId(id->value);
    return request.send().ignoreResult();
  });
}

absl::StatusOr<std::vector<WorkerStatus>> Client::workers() {
  return state_->session->call<std::vector<WorkerStatus>>([](UserSession& user) {
    return user.workersRequest().send().then(
        [](capnp::Response<protocol::UserSession::WorkersResults> response) {
          std::vector<WorkerStatus> workers;
          for (auto worker : response.getWorkers()) workers.push_back(client::to_public(worker));
          return workers;
        });
  });
}

absl::StatusOr<std::string> Client::make_join_file(const std::string& role,
                                                   const std::string& name) {
  return state_->session->call<std::string>([&](UserSession& user) {
    auto request = user.makeTokenRequest();
    request.setRole(role.c_str());
    request.setName(name.c_str());
    return request.send().then(
        [](capnp::Response<protocol::UserSession::MakeTokenResults> response) {
          return std::string(response.getJoinFile().cStr());
        });
  });
}

absl::StatusOr<DrainedWorker> Client::drain(const std::string& worker, bool drain) {
  return state_->session->call<DrainedWorker>([&](UserSession& user) {
    auto request = user.drainRequest();
    request.setWorker(worker.c_str());
    request.setDrain(drain);
    return request.send().then(
        [](capnp::Response<protocol::UserSession::DrainResults> response) -> DrainedWorker {
          const auto name = response.getName();
          return {to_string(WorkerId{response.getId()}),
                  std::string(reinterpret_cast<const char*>(name.begin()), name.size()),
                  response.getAttempts()};
        });
  });
}

absl::StatusOr<DrainedWorker> Client::pause(const std::string& worker, bool pause) {
  return state_->session->call<DrainedWorker>([&](UserSession& user) {
    auto request = user.pauseRequest();
    request.setWorker(worker.c_str());
    request.setPause(pause);
    return request.send().then(
        [](capnp::Response<protocol::UserSession::PauseResults> response) -> DrainedWorker {
          const auto name = response.getName();
          return {to_string(WorkerId{response.getId()}),
                  std::string(reinterpret_cast<const char*>(name.begin()), name.size()),
                  response.getAttempts()};
        });
  });
}

absl::StatusOr<JobHandle> submit(const Job& job) {
  auto found = rpc::find_coordinator("", rpc::Role::user);
  if (!found.ok()) return found.status();
  if (found->has_value()) {
    absl::StatusOr<Client> client = Client::connect("");
    if (!client.ok()) return client.status();
    return client->submit(job);
  }
  // All such calls of a process share one cluster, so that they share the machine's cores; it lives
  // as long as a handle to it does.
  static std::mutex mutex;
  static std::weak_ptr<Session> shared;
  static bool with_gpus = false;
  std::shared_ptr<Session> session;
  {
    std::lock_guard lock(mutex);
    session = shared.lock();
    if (!session) {
      with_gpus = job.resources.gpus > 0;
      LocalOptions options;
      options.gpus = with_gpus;
      auto started = Session::local(options);
      if (!started.ok()) return started.status();
      session = *std::move(started);
      shared = session;
    } else if (job.resources.gpus > 0 && !with_gpus) {
      return absl::FailedPreconditionError(
          "this process already runs a job without GPUs, on workers that have asked no GPU driver: "
          "submit this one through a Client::local() whose options have gpus = true");
    }
  }
  return Client(client_state(std::move(session))).submit(job);
}

}  // namespace pesc
